import { getOption, hasOption, type DescField, type JsonObject } from '@bufbuild/protobuf';
import { FeatureSet_FieldPresence } from '@bufbuild/protobuf/wkt';
import { field as fieldRules, Ignore, type FieldRules } from '@mad/proto/validate';

/** The validation rules of a field, where it has any. */
export function rulesOf(field: DescField): FieldRules | undefined {
  return hasOption(field, fieldRules) ? getOption(field, fieldRules) : undefined;
}

/** What of a field's rules JSON Schema can say. Numbers of 64 bits are strings in JSON: their bounds are told in words. */
export function constraintsOf(rules: FieldRules | undefined): JsonObject {
  const constraints = statedBy(rules);
  // "Empty, or else …".
  const mayBeEmpty = rules?.ignore === Ignore.IF_ZERO_VALUE && rules.type.case === 'string';
  return mayBeEmpty && Object.keys(constraints).length > 0 ? { anyOf: [constraints, { maxLength: 0 }] } : constraints;
}

function statedBy(rules: FieldRules | undefined): JsonObject {
  const { type } = rules ?? {};
  switch (type?.case) {
    case 'string': {
      const { value } = type;
      return without({
        const: value.const || undefined,
        minLength: numberOf(value.minLen),
        maxLength: numberOf(value.maxLen),
        pattern: value.pattern || undefined,
        enum: value.in.length > 0 ? value.in : undefined,
        format: value.wellKnown.value ? value.wellKnown.case : undefined,
      });
    }
    case 'int32':
    case 'uint32':
    case 'double':
      return boundsOf(type.value);
    case 'bytes':
      return without({
        // Base64 takes four characters for three bytes.
        minLength: type.value.minLen ? Math.ceil(Number(type.value.minLen) / 3) * 4 : undefined,
        maxLength: type.value.maxLen ? Math.ceil(Number(type.value.maxLen) / 3) * 4 : undefined,
      });
    case 'repeated':
      return without({
        minItems: numberOf(type.value.minItems),
        maxItems: numberOf(type.value.maxItems),
        uniqueItems: type.value.unique || undefined,
      });
    case 'map': {
      const keys = constraintsOf(type.value.keys);
      return without({
        minProperties: numberOf(type.value.minPairs),
        maxProperties: numberOf(type.value.maxPairs),
        propertyNames: Object.keys(keys).length > 0 ? keys : undefined,
      });
    }
    default:
      return {};
  }
}

/** What JSON Schema cannot say of a field's rules, in words; empty where there is nothing. */
export function constraintWords(rules: FieldRules | undefined): string {
  const { type } = rules ?? {};
  if (type?.case === 'int64' || type?.case === 'uint64') {
    const words = { gte: 'at least', gt: 'more than', lte: 'at most', lt: 'less than' };
    const bounds = presentOf(type.value as Bounds<bigint>);
    return Object.entries(bounds)
      .map(([rule, bound]) => `${words[rule as keyof typeof words]} ${bound}`)
      .join(', ');
  }
  if (type?.case === 'string' && type.value.maxBytes) return `at most ${type.value.maxBytes} bytes of UTF-8`;
  return '';
}

/** Whether a field's zero value is refused: then a request must carry the field. */
export function mustBeGiven(field: DescField): boolean {
  const rules = rulesOf(field);
  if (!rules || rules.ignore === Ignore.IF_ZERO_VALUE || rules.ignore === Ignore.ALWAYS) return false;
  if (rules.required) return true;
  if (field.presence !== FeatureSet_FieldPresence.IMPLICIT) return false;
  const { type } = rules;
  switch (type.case) {
    case 'string': {
      const { minLen, pattern, wellKnown, in: allowed, const: only } = type.value;
      return (
        minLen > 0n ||
        wellKnown.value === true ||
        only !== '' ||
        (allowed.length > 0 && !allowed.includes('')) ||
        (pattern !== '' && !new RegExp(pattern, 'u').test(''))
      );
    }
    case 'int32':
    case 'uint32':
    case 'double':
      return zeroIsOut(type.value);
    case 'int64':
    case 'uint64':
      return zeroIsOut(type.value);
    case 'bytes':
      return type.value.minLen > 0n;
    case 'enum':
      return type.value.notIn.includes(0);
    case 'repeated':
      return type.value.minItems > 0n;
    case 'map':
      return type.value.minPairs > 0n;
    default:
      return false;
  }
}

interface Bounds<T> {
  gte?: T;
  gt?: T;
  lte?: T;
  lt?: T;
}

/** The bounds a rule states: proto2 fields that are unset read as zero, which is no bound. */
function presentOf<T>(rule: Bounds<T>): Bounds<T> {
  const stated = (name: keyof Bounds<T>) => Object.hasOwn(rule, name);
  return {
    ...(stated('gte') && { gte: rule.gte! }),
    ...(stated('gt') && { gt: rule.gt! }),
    ...(stated('lte') && { lte: rule.lte! }),
    ...(stated('lt') && { lt: rule.lt! }),
  };
}

function boundsOf(rule: Bounds<number>): JsonObject {
  const { gte, gt, lte, lt } = presentOf(rule);
  return without({ minimum: gte, exclusiveMinimum: gt, maximum: lte, exclusiveMaximum: lt });
}

function zeroIsOut(rule: Bounds<number> | Bounds<bigint>): boolean {
  const { gte, gt, lte, lt } = presentOf(rule as Bounds<number | bigint>);
  return (
    (gte !== undefined && gte > 0) ||
    (gt !== undefined && gt >= 0) ||
    (lte !== undefined && lte < 0) ||
    (lt !== undefined && lt <= 0)
  );
}

const numberOf = (value: bigint): number | undefined => (value === 0n ? undefined : Number(value));

function without(object: Record<string, unknown>): JsonObject {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as JsonObject;
}
