const BITS = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll('0', '').length);

/**
 * Tanimoto similarity of two bit fingerprints of one length: bits in common over bits in either, 0 to 1.
 * Two fingerprints without a bit have similarity 0, as RDKit says.
 * @throws RangeError when the lengths differ.
 */
export function tanimoto(a: Uint8Array, b: Uint8Array): number {
  if (a.length !== b.length) throw new RangeError(`fingerprints of ${a.length} and ${b.length} bytes do not compare`);
  let common = 0;
  let either = 0;
  for (let i = 0; i < a.length; i++) {
    common += BITS[a[i]! & b[i]!]!;
    either += BITS[a[i]! | b[i]!]!;
  }
  return either === 0 ? 0 : common / either;
}
