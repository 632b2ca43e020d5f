import type { ParameterSchema } from './task-definition.ts';

/** What is wrong with one field, by its path in the request. */
export interface Problem {
  field: string;
  description: string;
}

const TYPES = new Set(['string', 'number', 'integer', 'boolean']);
const FORMATS = new Set(['artifact', 'smiles']);

/**
 * What a parameter's schema may say. A closed list: `pattern` would let one organization stop the service for all with
 * a slow expression, `$ref` would reach elsewhere, and combinations would hide a parameter's type.
 */
const KEYWORDS = new Set([
  'type',
  'title',
  'description',
  'unit',
  'default',
  'enum',
  'minimum',
  'maximum',
  'exclusiveMinimum',
  'exclusiveMaximum',
  'multipleOf',
  'minLength',
  'maxLength',
  'format',
  'purpose',
  'not',
]);

const MAX_ENUM_VALUES = 1_000;

/** What a job's or a task's parameter may be called. */
export const PARAMETER_NAME = /^[a-z][a-z0-9_]{0,62}$/;

/**
 * Says what keeps a schema from being a parameter's, or undefined. What the keywords' own values may be is JSON
 * Schema's affair and checked elsewhere.
 */
export function parameterSchemaFault(schema: unknown): string | undefined {
  if (typeof schema !== 'object' || schema === null || Array.isArray(schema)) return 'must be a JSON Schema object';
  const { type, format, enum: values, not } = schema as ParameterSchema;
  const foreign = Object.keys(schema).find((keyword) => !KEYWORDS.has(keyword));
  if (foreign !== undefined) return `the keyword ${JSON.stringify(foreign)} is not supported`;
  if (typeof type !== 'string' || !TYPES.has(type)) return 'needs a "type": string, number, integer or boolean';
  if (format !== undefined && !(typeof format === 'string' && FORMATS.has(format) && type === 'string')) {
    return 'a "format" is "artifact" or "smiles", of a string';
  }
  if (Array.isArray(values) && values.length > MAX_ENUM_VALUES)
    return `an "enum" has at most ${MAX_ENUM_VALUES} values`;
  if (not !== undefined && !isConst(not)) return 'a "not" holds one "const"';
  return undefined;
}

function isConst(not: unknown): boolean {
  if (typeof not !== 'object' || not === null) return false;
  return Object.keys(not).join() === 'const' && typeof (not as { const: unknown }).const !== 'object';
}

/** True where every value of the one type may stand for the other's. */
export function fits(source: ParameterSchema, target: ParameterSchema): boolean {
  const sameType = source['type'] === target['type'];
  if (!sameType && !(source['type'] === 'integer' && target['type'] === 'number')) return false;
  return source['format'] === undefined || source['format'] === target['format'];
}

/** A type for people: `number`, `artifact`. */
export function typeName(schema: ParameterSchema): string {
  const { format, type } = schema;
  return (format ?? type) as string;
}
