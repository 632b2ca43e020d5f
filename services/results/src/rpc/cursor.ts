import type { JsonValue } from '@bufbuild/protobuf';

/** What Postgres's integer holds. */
export const isInt32 = (value: unknown): boolean => Number.isInteger(value) && Math.abs(value as number) < 2 ** 31;

/** Says whether a cursor has this shape, one letter a part: `n` any number, `i` what Postgres's integer holds. */
export const shapeOf =
  (shape: string) =>
  (cursor: JsonValue): boolean =>
    Array.isArray(cursor) &&
    cursor.length === shape.length &&
    cursor.every((part, index) => (shape[index] === 'i' ? isInt32(part) : typeof part === 'number'));
