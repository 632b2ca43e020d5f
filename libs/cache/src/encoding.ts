/** Marks bytes; no JSON text begins with it. */
const BYTES_MARK = 0;

/** One form for both stores: a value that went through one behaves as if it had gone through the other. */
export function encode(value: unknown): Buffer {
  if (value instanceof Uint8Array) return Buffer.concat([Uint8Array.of(BYTES_MARK), value]);
  const text = JSON.stringify(value) as string | undefined;
  if (text === undefined) throw new TypeError('a cached value must be bytes or JSON');
  return Buffer.from(text);
}

/** The reverse of `encode`; bytes come back as a Uint8Array of their own. */
export function decode(stored: Uint8Array): unknown {
  if (stored[0] === BYTES_MARK) return new Uint8Array(stored.subarray(1));
  return JSON.parse(Buffer.from(stored.buffer, stored.byteOffset, stored.byteLength).toString('utf8'));
}

/** Throws unless `ttlMs` is at least 1: a value without end would never leave. */
export function checkTtl(ttlMs: number): number {
  if (!(ttlMs >= 1)) throw new RangeError(`a cached value needs a time to live of at least 1 ms, not ${ttlMs}`);
  return Math.floor(ttlMs);
}
