import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Receptor } from '@mad/chemistry';
import { parseReceptor, receptorAtomsInBox } from '@mad/chemistry';
import { MINUTE_MS, SECOND_MS } from '@mad/process';
import { convergence } from '../domain/convergence.ts';
import type { DockingParameters } from '../domain/docking-parameters.ts';
import { dockingParameters, replicaSeeds } from '../domain/docking-parameters.ts';
import { PoseStructures } from '../domain/pose-structure.ts';
import { atomsText, knownReplicas, type Replica } from '../domain/replica.ts';
import { readAtoms, readVinaOutput } from '../domain/vina-output.ts';
import { isPlausible, needsCorrection, scorePoses } from '../domain/vina-score.ts';
import type { Engine, EngineItem, EngineTask, ItemOutcome, ScoredItem } from './engine.ts';
import { EngineError, failedItem } from './engine.ts';
import { OBABEL_VERSION, prepareLigand, type PreparedLigand } from './ligand-preparation.ts';
import { ProgramError, runProgram } from './run-program.ts';

export interface VinaOptions {
  /** Where `vina` and `obabel` are looked for (PATH). */
  searchPath: string;
  /** How long one search may take. */
  searchTimeoutMs?: number;
  /** Where each task gets a private folder; the system's folder for temporary files unless told. */
  scratch?: string;
}

/** What one task's searches share. */
interface Docking {
  parameters: DockingParameters;
  receptor: Receptor;
  version: string;
  cores: number;
  /** A private folder, removed with the task. */
  folder: string;
  signal: AbortSignal;
}

/**
 * Docking by AutoDock Vina 1.2, ligands prepared by OpenChemLib and Open Babel. `vina.dock` takes the artifact `receptor`
 * and the parameters of `DockingParameters`; the score is the best replica's corrected affinity in kcal/mol, lower is
 * better. One search takes 350 to 600 MB of memory.
 */
export function createVinaEngine(options: VinaOptions): Engine {
  const { searchPath, searchTimeoutMs = 60 * MINUTE_MS, scratch = tmpdir() } = options;

  async function vinaVersion(): Promise<string> {
    const said = await ask('vina', ['--version']);
    return /v?(\d+\.\d+\.\d+)/.exec(said)?.[1] ?? 'unknown';
  }

  function ask(command: string, args: string[]): Promise<string> {
    const signal = new AbortController().signal;
    return runProgram(command, args, { cwd: scratch, searchPath, signal, timeoutMs: 30 * SECOND_MS });
  }

  async function available(): Promise<{ ok: true } | { ok: false; reason: string }> {
    try {
      const version = await vinaVersion();
      if (!/^1\.2\.\d+$/.test(version)) return { ok: false, reason: `AutoDock Vina 1.2 is needed, found ${version}` };
      const babel = await ask('obabel', ['-V']);
      if (babel.includes(`Open Babel ${OBABEL_VERSION}`)) return { ok: true };
      return { ok: false, reason: `Open Babel ${OBABEL_VERSION} is needed, found: ${babel.trim()}` };
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      return { ok: false, reason: `${why} (Debian: apt-get install autodock-vina openbabel)` };
    }
  }

  async function dock(item: EngineItem, docking: Docking): Promise<ScoredItem> {
    const { parameters, folder, signal } = docking;
    const seeds = replicaSeeds(parameters);
    const replicas = knownReplicas(item.prior, seeds);
    const ligand = await prepareLigand(item.smiles, { obabel: 'obabel', searchPath, cwd: folder, signal });
    await writeFile(join(folder, 'ligand.pdbqt'), ligand.pdbqt);
    const structures = structuresOf(ligand);
    for (const seed of seeds.slice(replicas.length)) {
      replicas.push(await search(docking, { replicate: replicas.length + 1, seed, structures }));
    }
    return outcomeOf(item, replicas, docking.version);
  }

  async function search(
    docking: Docking,
    { replicate, seed, structures }: { replicate: number; seed: number; structures: PoseStructures },
  ): Promise<Replica> {
    const { folder, signal, version } = docking;
    await rm(join(folder, 'poses.pdbqt'), { force: true });
    const run = { cwd: folder, searchPath, signal, timeoutMs: searchTimeoutMs };
    await runProgram('vina', searchArguments(docking, seed), run).catch((error: unknown) => {
      if (!(error instanceof ProgramError)) throw error;
      throw new EngineError(error.timedOut ? 'TIMEOUT' : 'ENGINE_FAILED', error.message, { cause: error });
    });
    // Vina may end with exit code 0 and have written nothing.
    const poses = readVinaOutput(await readFile(join(folder, 'poses.pdbqt'), 'utf8').catch(() => ''));
    const scored = scorePoses(version, poses);
    const [top] = poses;
    if (!scored || !top) throw new EngineError('ENGINE_FAILED', `Vina's output of seed ${seed} cannot be read`);
    const best = scored.poses[0]?.score ?? Number.NaN;
    const molBlocks = poses.map(({ atoms }) => structures.molBlock(atoms));
    if (isPlausible(best)) return { ...scored, replicate, seed, top, molBlocks };
    throw new EngineError(
      'IMPLAUSIBLE',
      `the best affinity of seed ${seed} is ${best} kcal/mol, which no molecule has`,
    );
  }

  return {
    name: 'vina',
    tasks: ['vina.dock'],
    scoreUnits: () => 'kcal/mol',
    version: vinaVersion,
    available,
    async run(task, emit, signal) {
      signal.throwIfAborted();
      if (task.task !== 'vina.dock') throw new EngineError('UNKNOWN_TASK', `the vina engine runs no '${task.task}'`);
      const [parameters, receptor] = readTask(task);
      const folder = await mkdtemp(join(scratch, 'mad-vina-'));
      try {
        await writeFile(join(folder, 'receptor.pdbqt'), receptor.text);
        const docking = { parameters, receptor, folder, signal, cores: task.cores, version: await vinaVersion() };
        for (const item of task.items) await emit(await outcome(item, docking));
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    },
    close: async () => undefined,
  };

  async function outcome(item: EngineItem, docking: Docking): Promise<ItemOutcome> {
    try {
      return await dock(item, docking);
    } catch (error) {
      docking.signal.throwIfAborted();
      if (error instanceof EngineError) return failedItem(item.itemNo, error);
      const message = error instanceof Error ? error.message : String(error);
      return failedItem(item.itemNo, new EngineError('ENGINE_FAILED', message));
    }
  }
}

/** Reads what all searches share, and refuses a box the receptor is not in before anything runs. */
function readTask(task: EngineTask): [DockingParameters, Receptor] {
  const content = task.artifacts['receptor'];
  if (content === undefined) throw new EngineError('INVALID_PARAMETER', 'receptor is missing');
  let parameters: DockingParameters;
  let receptor: Receptor;
  try {
    parameters = dockingParameters(task.parameters);
    receptor = parseReceptor(content);
  } catch (error) {
    throw new EngineError('INVALID_PARAMETER', error instanceof Error ? error.message : String(error), {
      cause: error,
    });
  }
  if (receptorAtomsInBox(receptor.atoms, parameters.box) === 0) {
    throw new EngineError('IMPLAUSIBLE', 'no atom of the receptor lies in the box');
  }
  return [parameters, receptor];
}

function searchArguments({ parameters, cores }: Docking, seed: number): string[] {
  const { box, exhaustiveness, numModes, energyRange } = parameters;
  const settings = {
    receptor: 'receptor.pdbqt',
    ligand: 'ligand.pdbqt',
    out: 'poses.pdbqt',
    center_x: box.center[0],
    center_y: box.center[1],
    center_z: box.center[2],
    size_x: box.size[0],
    size_y: box.size[1],
    size_z: box.size[2],
    exhaustiveness,
    num_modes: numModes,
    energy_range: energyRange,
    seed,
    cpu: cores,
    verbosity: 0,
  };
  return Object.entries(settings).map(([name, value]) => `--${name}=${value}`);
}

function structuresOf({ molfile, pdbqt }: PreparedLigand): PoseStructures {
  try {
    return new PoseStructures(molfile, readAtoms(pdbqt));
  } catch (error) {
    throw new EngineError('PREPARATION_FAILED', `Open Babel's PDBQT: ${(error as Error).message}`, { cause: error });
  }
}

function outcomeOf({ itemNo }: EngineItem, replicas: readonly Replica[], version: string): ScoredItem {
  const scores = replicas.map(({ poses }) => poses[0]?.score ?? Number.NaN);
  const score = Math.min(...scores);
  const best = replicas[scores.indexOf(score)];
  const confidence = convergence(replicas.map(({ top }, index) => ({ score: scores[index]!, atoms: top.atoms })));
  return {
    itemNo,
    status: 'scored',
    score,
    ...(confidence === null ? {} : { confidenceScore: confidence }),
    resultData: {
      affinity: score,
      raw_affinity: best?.top.raw,
      corrected: needsCorrection(version),
      torsions: best?.torsions,
      replicas: replicas.map(({ seed, top }, index) => ({ seed, affinity: scores[index], top: atomsText(top.atoms) })),
    },
    poses: replicas.flatMap(({ replicate, poses, molBlocks }) =>
      poses.flatMap((pose, index) =>
        isPlausible(pose.score) ? [{ replicate, ...pose, molBlock: molBlocks[index]! }] : [],
      ),
    ),
  };
}
