import { checkSmiles } from '@mad/chemistry';
import { Ajv, type ErrorObject } from 'ajv';
import type { Problem } from './domain/parameter-schema.ts';
import type { SchemaValidator } from './domain/pipeline-spec.ts';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

const FORMAT_MESSAGES: Record<string, string> = {
  artifact: "must be an artifact's id (a UUID)",
  smiles: 'must be a SMILES: printable ASCII without blanks, at most 600 characters',
};

/** JSON Schema (draft 07) with the formats and annotations of our parameters. */
export function schemaValidator(): SchemaValidator {
  const ajv = new Ajv({ strict: true, allErrors: true, useDefaults: true, verbose: true });
  ajv.addVocabulary(['unit', 'purpose']);
  ajv.addFormat('artifact', UUID);
  ajv.addFormat('smiles', (text: string) => checkSmiles(text) === undefined);
  return {
    fault(schema) {
      if (ajv.validateSchema(schema) !== true) {
        const [error] = ajv.errors ?? [];
        const keyword = error?.instancePath.slice(1).replaceAll('/', '.');
        return keyword ? `"${keyword}" ${error?.message}` : (error?.message ?? 'is no JSON Schema');
      }
      // Strict mode finds more, e.g. a "minimum" of a string.
      const object = { type: 'object', properties: { value: schema } };
      try {
        ajv.compile(object);
        return undefined;
      } catch (error) {
        return (error as Error).message.replace(/^strict mode: /, '').replace(/ at ".*$/, '');
      } finally {
        ajv.removeSchema(object);
      }
    },
    complete(schema, value) {
      const filled = structuredClone(value);
      const own = { ...schema };
      const validate = ajv.compile(own);
      const problems = validate(filled) ? [] : (validate.errors ?? []).map(problemOf);
      // The library keeps what it compiled by the schema object, for ever.
      ajv.removeSchema(own);
      return { value: filled, problems };
    },
  };
}

function problemOf(error: ErrorObject): Problem {
  const { keyword, params, instancePath } = error;
  if (keyword === 'required') return { field: String(params['missingProperty']), description: 'is required' };
  if (keyword === 'additionalProperties') {
    return { field: String(params['additionalProperty']), description: 'is unknown' };
  }
  return { field: instancePath.slice(1), description: descriptionOf(error) };
}

function descriptionOf({ keyword, params, schema, message }: ErrorObject): string {
  switch (keyword) {
    case 'format':
      return FORMAT_MESSAGES[String(params['format'])] ?? String(message);
    case 'not':
      return `must not be ${JSON.stringify((schema as { const: unknown }).const)}`;
    case 'enum':
      return `must be one of ${(schema as unknown[]).map((value) => JSON.stringify(value)).join(', ')}`;
    default:
      return message ?? 'is not allowed';
  }
}
