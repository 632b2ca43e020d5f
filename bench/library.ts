import { readFile } from 'node:fs/promises';
import { gunzipSync } from 'node:zlib';
import { checkSmiles } from '@mad/chemistry';

/** Molecules to measure with: their SMILES, all different, in an order that does not change. */
export interface Library {
  /** Where they come from, for the record. */
  source: string;
  smiles: string[];
}

const EXAMPLES = new URL('../examples/approved-drugs.smi', import.meta.url);

/** Groups put before a molecule's first atom: each makes another molecule of much the same size. */
const GROUPS = (
  'C CC CCC CC(C) C(C)(C)(C) OCC NCC FCC ClCC BrCC COC CNC CSC C=CC ' +
  'C#CC N#CC FC(F)(F)C c1ccccc1C C1CC1C C1CCC1C C1CCCC1C O=CC CC(=O)C NC(=O)C'
).split(' ');

/**
 * Reads a library: `path` is a `.smi`, or a CSV whose first column is the SMILES, packed with gzip or not. Without one, the
 * example drugs and what becomes of them with a small group put on.
 */
export async function readLibrary(path: string | undefined): Promise<Library> {
  const text = await readText(path ?? EXAMPLES);
  const first = text
    .split(/\r?\n/)
    .map((line) => line.split(/[\t ,]/, 1)[0]!)
    .filter((smiles) => smiles !== '' && smiles !== 'smiles' && checkSmiles(smiles) === undefined);
  if (path !== undefined) return { source: path.split('/').at(-1)!, smiles: [...new Set(first)] };
  // An aromatic or bracketed first atom has no room for a group.
  const open = first.filter((smiles) => /^[CNO](?![lr])/.test(smiles));
  const derived = GROUPS.flatMap((group) => open.map((smiles) => `${group}${smiles}`));
  return { source: 'examples/approved-drugs.smi, with groups put on', smiles: [...new Set([...first, ...derived])] };
}

async function readText(path: string | URL): Promise<string> {
  const bytes = await readFile(path);
  const packed = bytes[0] === 0x1f && bytes[1] === 0x8b;
  return (packed ? gunzipSync(bytes) : bytes).toString('utf8');
}
