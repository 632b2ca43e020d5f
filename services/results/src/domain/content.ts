/**
 * Content of one answer, or of one piece of a stream, at most: half of what a message may hold (4 MiB), so that what is
 * counted roughly has room. One row may be larger: `problemOfContent` sees to it that it fits.
 */
export const CONTENT_BYTES = 2 * 1024 * 1024;
/** Readers of protobuf go 100 messages deep; each level of an object in a Struct is three of them. */
const MAX_DEPTH = 30;

/** Bytes of texts as UTF-8. */
export function textBytes(...texts: readonly string[]): number {
  return texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
}

/**
 * Bytes of a JSON object as a google.protobuf.Struct, which may be five times its text: a number takes nine, whatever it
 * is. Infinite when it nests too deep to be read.
 */
export function structBytes(object: object, depth = 1): number {
  if (depth > MAX_DEPTH) return Infinity;
  let bytes = 0;
  for (const [key, value] of Object.entries(object)) {
    bytes += delimited(delimited(Buffer.byteLength(key)) + delimited(valueBytes(value, depth)));
  }
  return bytes;
}

function valueBytes(value: unknown, depth: number): number {
  if (typeof value === 'number') return 9;
  if (typeof value === 'string') return delimited(Buffer.byteLength(value));
  if (value === null || typeof value !== 'object') return 2;
  return delimited(Array.isArray(value) ? listBytes(value, depth + 1) : structBytes(value, depth + 1));
}

function listBytes(list: readonly unknown[], depth: number): number {
  if (depth > MAX_DEPTH) return Infinity;
  return list.reduce<number>((sum, value) => sum + delimited(valueBytes(value, depth)), 0);
}

/** A field of so many bytes with its tag and its length, seven bits of it a byte. */
function delimited(length: number): number {
  let bytes = 2 + length;
  for (let rest = length; rest >= 128 && rest < Infinity; rest /= 128) bytes += 1;
  return bytes;
}

/** What is wrong with what an engine said of an item, in words; undefined when it can be sent back. */
export function problemOfContent(object: object): string | undefined {
  const bytes = structBytes(object);
  if (bytes === Infinity) return `nests deeper than ${MAX_DEPTH} levels`;
  if (bytes <= CONTENT_BYTES) return undefined;
  return `takes ${bytes} bytes in an answer, and ${CONTENT_BYTES} fit`;
}
