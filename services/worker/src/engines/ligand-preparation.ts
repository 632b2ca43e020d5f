import { Worker } from 'node:worker_threads';
import { MINUTE_MS } from '@mad/process';
import { EngineError } from './engine.ts';
import { ProgramError, runProgram } from './run-program.ts';

/** How ligands are made; part of every cache key, so it changes with anything that changes a ligand. */
export const LIGAND_RECIPE = 'openchemlib-9.25+obabel-3.1.1';

/** The version of Open Babel the recipe names. */
export const OBABEL_VERSION = '3.1.1';

const EMBED_TIMEOUT_MS = 5 * MINUTE_MS;
const OBABEL_TIMEOUT_MS = 2 * MINUTE_MS;

export interface PreparationOptions {
  obabel: string;
  searchPath: string;
  cwd: string;
  signal: AbortSignal;
}

/** A ligand as it is docked, and the shape it was made from, which still has its bonds. */
export interface PreparedLigand {
  pdbqt: string;
  molfile: string;
}

/**
 * Makes a ligand's PDBQT from its canonical SMILES: one 3D shape, hydrogens, Gasteiger charges, rotatable bonds. The same
 * SMILES gives the same bytes. Unstated stereo centres are set one way, the same each time.
 * @throws EngineError UNSUPPORTED_LIGAND or PREPARATION_FAILED.
 */
export async function prepareLigand(smiles: string, options: PreparationOptions): Promise<PreparedLigand> {
  const fragments = smiles.split('.').length;
  if (fragments > 1) {
    throw new EngineError('UNSUPPORTED_LIGAND', `the molecule has ${fragments} fragments; dock the one that binds`);
  }
  const molfile = await embed(smiles, options.signal);
  const pdbqt = await toPdbqt(molfile, options);
  if (!/^(ATOM|HETATM)/m.test(pdbqt)) {
    const why = 'Open Babel has no PDBQT for it; an element without Gasteiger charges is the usual cause';
    throw new EngineError('UNSUPPORTED_LIGAND', why);
  }
  return { pdbqt, molfile };
}

/** One 3D conformer as a molfile, made in a thread of its own (it takes seconds of pure computing). */
async function embed(smiles: string, signal: AbortSignal): Promise<string> {
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<string | null>();
  const thread = new Worker(new URL('./embed-thread.ts', import.meta.url), { workerData: smiles });
  const timeout = () => reject(new EngineError('TIMEOUT', `the molecule was not embedded in ${EMBED_TIMEOUT_MS} ms`));
  const timer = setTimeout(timeout, EMBED_TIMEOUT_MS);
  const abort = () => reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  const failed = (cause: unknown) =>
    reject(new EngineError('PREPARATION_FAILED', 'the molecule cannot be embedded in 3D', { cause }));
  thread.once('message', resolve).once('error', failed).once('exit', failed);
  try {
    const molfile = await promise;
    if (molfile === null) throw new EngineError('PREPARATION_FAILED', 'the molecule has no 3D shape without clashes');
    return molfile;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
    await thread.terminate();
  }
}

async function toPdbqt(molfile: string, { obabel, searchPath, cwd, signal }: PreparationOptions): Promise<string> {
  const args = ['-imol', '-opdbqt', '--partialcharge', 'gasteiger'];
  const run = { cwd, searchPath, signal, timeoutMs: OBABEL_TIMEOUT_MS, input: molfile };
  try {
    return await runProgram(obabel, args, run);
  } catch (error) {
    if (!(error instanceof ProgramError)) throw error;
    throw new EngineError('PREPARATION_FAILED', error.message, { cause: error });
  }
}
