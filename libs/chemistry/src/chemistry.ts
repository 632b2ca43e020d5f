import { availableParallelism } from 'node:os';
import { SECOND_MS } from '@mad/process';
import type { MoleculeRow, Normalized, Similar } from './molecule.ts';
import type { Rejected } from './smiles.ts';
import { isRejected } from './smiles.ts';
import { tanimoto } from './tanimoto.ts';
import { createThreadPool } from './thread-pool.ts';

/** RDKit in worker threads: safe against poisonous input, and quick for whole libraries. */
export interface Chemistry {
  /**
   * Canonical form, InChIKey, formula, properties and fingerprint of each row, in the order given; a row RDKit must not
   * or cannot take is answered with its refusal. Never throws for a molecule's sake.
   * @throws the signal's reason when it is aborted.
   */
  normalize(rows: readonly MoleculeRow[], options?: AskOptions): Promise<(Normalized | Rejected)[]>;
  /** Tanimoto similarity of each SMILES to the reference over Morgan fingerprints, radius 2, 2,048 bits. */
  similarity(reference: string, smiles: readonly string[], options?: AskOptions): Promise<(Similar | Rejected)[]>;
  /** Another spelling of the same molecule; the same seed gives the same one. */
  respell(smiles: string, seed: number): Promise<{ smiles: string } | Rejected>;
  /** RDKit's version, which belongs to every cache key computed from its canonical form. */
  version(): Promise<string>;
  /** Ends the threads; what is still asked fails. */
  close(): Promise<void>;
}

export interface AskOptions {
  signal?: AbortSignal | undefined;
}

export interface ChemistryOptions {
  /** How many threads; as many as there are cores unless told. */
  workers?: number;
  /** How long one molecule may take before it is refused with TIMEOUT. */
  moleculeTimeoutMs?: number;
}

/** Opens a pool of RDKit threads. They start with the first question, so opening costs nothing. */
export function openChemistry(options: ChemistryOptions = {}): Chemistry {
  const pool = createThreadPool({
    size: options.workers ?? availableParallelism(),
    moleculeTimeoutMs: options.moleculeTimeoutMs ?? 5 * SECOND_MS,
  });
  return {
    normalize: (rows, { signal } = {}) => {
      const smiles = rows.map((row) => row.smiles);
      return pool.ask('normalize', undefined, smiles, signal);
    },
    similarity: async (reference, smiles, { signal } = {}) => {
      const [center, ...others] = await pool.ask('fingerprint', undefined, [reference, ...smiles], signal);
      if (!center || isRejected(center)) return others.map(() => referenceRefused(center));
      return others.map((other) =>
        isRejected(other) ? other : { similarity: tanimoto(center.fingerprint, other.fingerprint) },
      );
    },
    respell: async (smiles, seed) => {
      const [outcome] = await pool.ask('respell', seed, [smiles]);
      if (!outcome) throw new Error('the pool answered nothing');
      return outcome;
    },
    version: () => pool.version(),
    close: () => pool.close(),
  };
}

function referenceRefused(refusal: Rejected | undefined): Rejected {
  return { reason: refusal?.reason ?? 'UNPARSABLE', message: `the reference: ${refusal?.message ?? 'no answer'}` };
}
