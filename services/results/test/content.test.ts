import { fromJson, toBinary, type JsonObject } from '@bufbuild/protobuf';
import { StructSchema } from '@bufbuild/protobuf/wkt';
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { CONTENT_BYTES, problemOfContent, structBytes } from '../src/domain/content.ts';

const nested = (levels: number): object => (levels === 1 ? {} : { a: nested(levels - 1) });

test('the size of an object as a Struct is the size of its message', () => {
  const value = fc.letrec((tie) => ({
    any: fc.oneof(
      { maxDepth: 5 },
      fc.constant(null),
      fc.boolean(),
      fc.double({ noNaN: true, noDefaultInfinity: true }),
      fc.string({ unit: 'binary', maxLength: 300 }),
      fc.array(tie('any'), { maxLength: 200 }),
      fc.dictionary(fc.string({ unit: 'grapheme' }), tie('any')),
    ),
  })).any;
  fc.assert(
    fc.property(fc.dictionary(fc.string(), value, { noNullPrototype: true }), (object) => {
      const json = JSON.parse(JSON.stringify(object)) as JsonObject;
      expect(structBytes(json)).toBe(toBinary(StructSchema, fromJson(StructSchema, json)).length);
    }),
    { numRuns: 200 },
  );
});

test('what a message could not carry is a problem by its size there, however short its text', () => {
  const numbers = { a: Array.from({ length: 250_000 }, () => 1) };
  expect(JSON.stringify(numbers).length).toBeLessThan(600_000);
  expect(problemOfContent(numbers)).toContain(`${structBytes(numbers)} bytes in an answer, and ${CONTENT_BYTES} fit`);
  expect(problemOfContent({ a: Array.from({ length: 150_000 }, () => 1) })).toBeUndefined();
  expect(problemOfContent({ a: '☃'.repeat(750_000) })).toContain('bytes in an answer');
});

test('what nests deeper than readers of protobuf go is a problem, however deep', () => {
  expect(problemOfContent(nested(30))).toBeUndefined();
  expect(() => fromJson(StructSchema, nested(30) as JsonObject)).not.toThrow();
  expect(problemOfContent(nested(31))).toBe('nests deeper than 30 levels');
  const deep = JSON.parse(`{"a":${'['.repeat(2000)}${']'.repeat(2000)}}`) as object;
  expect(problemOfContent(deep)).toBe('nests deeper than 30 levels');
});
