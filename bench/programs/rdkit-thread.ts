// A worker thread with RDKit alone, the floor of everything that computes on molecules.
import { parentPort } from 'node:worker_threads';
import { tanimoto } from '@mad/chemistry';
import initialize from '@rdkit/rdkit';
import type { MainModule, Mol } from '@rdkit/rdkit';
import type { RdkitQuestion } from '../rdkit-floor.ts';

// The package is CommonJS whose exports object is the factory; its declarations describe an ES module.
const factory = initialize as unknown as typeof initialize.default;
const port = parentPort!;
const MORGAN = JSON.stringify({ radius: 2, nBits: 2048 });
const load = (): Promise<MainModule> => factory({ print: () => undefined, printErr: () => undefined });
let rdkit = await load();

/** The calls into RDKit that registration cannot do without: form, key, properties, composition, fingerprint. */
function registration(molecule: Mol): void {
  molecule.get_smiles();
  const inchi = molecule.get_inchi();
  if (inchi !== '') rdkit.get_inchikey_for_inchi(inchi);
  molecule.get_descriptors();
  molecule.get_json();
  fingerprint(molecule);
}

function fingerprint(molecule: Mol): Uint8Array {
  return molecule.get_morgan_fp_as_uint8array(MORGAN) as Uint8Array;
}

function withMolecule<T>(smiles: string, fn: (molecule: Mol) => T): T | undefined {
  const molecule = rdkit.get_mol(smiles);
  if (!molecule) return undefined;
  const answer = fn(molecule);
  molecule.delete();
  return answer;
}

async function run({ smiles, reference }: RdkitQuestion): Promise<number> {
  const center = reference === undefined ? undefined : withMolecule(reference, fingerprint);
  let taken = 0;
  for (const one of smiles) {
    try {
      const done = withMolecule(one, (molecule) => {
        if (center) tanimoto(center, fingerprint(molecule));
        else registration(molecule);
        return true;
      });
      if (done) taken += 1;
    } catch {
      // Whatever was thrown, the module's memory can no longer be trusted.
      rdkit = await load();
    }
  }
  return taken;
}

port.on('message', (question: RdkitQuestion) => {
  void run(question).then((taken) => port.postMessage(taken, []));
});
port.postMessage('ready', []);
