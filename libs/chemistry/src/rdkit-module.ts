import initialize from '@rdkit/rdkit';
import type { Log, MainModule, Mol } from '@rdkit/rdkit';
import { parseFailure } from './parse-failure.ts';
import type { Rejected } from './smiles.ts';
import { isRejected } from './smiles.ts';

// The package is CommonJS whose exports object is the factory; its declarations describe an ES module.
const factory = initialize as unknown as typeof initialize.default;

/** One instance of RDKit's WASM module. It lives until something throws out of it, and is then made anew. */
export interface RdkitModule {
  version: string;
  /** Parses, hands the molecule to `read` and frees it (a forgotten one leaks 11 kB; a throw abandons the module whole). */
  withMolecule<T extends object>(smiles: string, read: (molecule: Mol) => T): T | Rejected;
  inchikeyOf(molecule: Mol): string | null;
}

/** Instantiates the module: about 0.3 s for a thread's first, 0.05 s for the next. */
export async function initializeRdkit(): Promise<RdkitModule> {
  const rdkit: MainModule = await factory({ print: () => undefined, printErr: () => undefined });
  const log = rdkit.set_log_capture('rdApp.*');
  return {
    version: rdkit.version(),
    withMolecule: (smiles, read) => {
      const molecule = parse(rdkit, log, smiles);
      if (isRejected(molecule)) return molecule;
      const answer = read(molecule);
      molecule.delete();
      return answer;
    },
    inchikeyOf: (molecule) => {
      const inchi = molecule.get_inchi();
      return inchi === '' ? null : rdkit.get_inchikey_for_inchi(inchi);
    },
  };
}

function parse(rdkit: MainModule, log: Log | null, smiles: string): Mol | Rejected {
  log?.clear_buffer();
  const molecule = rdkit.get_mol(smiles);
  return molecule ?? parseFailure(log?.get_buffer() ?? '');
}
