import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { MINUTE_MS } from '@mad/process';
import initialize from '@rdkit/rdkit';
import type { EngineItem, EngineTask, ItemOutcome, ScoredItem } from '../../src/engines/engine.ts';
import { LIGAND_RECIPE, prepareLigand } from '../../src/engines/ligand-preparation.ts';
import { createVinaEngine } from '../../src/engines/vina-engine.ts';
import { collect, engineContract } from './engine-contract.ts';

const EXAMPLES = resolve(import.meta.dirname, '../../../../examples');
const SEARCH_PATH = process.env['PATH'] ?? '/usr/bin:/bin';
const ADAMANTANE = 'C1C2CC3CC1CC(C2)C3';
const QUININE = 'C=C[C@H]1CN2CC[C@H]1C[C@H]2[C@H](O)c1ccnc2ccc(OC)cc12';

const installed = ['vina', 'obabel'].every((name) =>
  SEARCH_PATH.split(':').some((folder) => existsSync(join(folder, name))),
);
const reason = installed ? '' : ' (skipped: vina and obabel are not installed)';
const run = installed ? test : test.skip;

const receptor = readFileSync(join(EXAMPLES, 'beta-cyclodextrin.pdbqt'), 'utf8');
const PARAMETERS = {
  center_x: 1.363,
  center_y: -1.742,
  center_z: 2.94,
  size_x: 20,
  size_y: 20,
  size_z: 20,
  exhaustiveness: 1,
  num_modes: 9,
  energy_range: 3,
  seed: 1,
  replicas: 1,
};

const engine = createVinaEngine({ searchPath: SEARCH_PATH });

function dockingOf(smiles: string[], changes: Record<string, unknown> = {}): EngineTask {
  const items = smiles.map((text, index) => ({ itemNo: index + 1, smiles: text }));
  const parameters = { ...PARAMETERS, ...changes };
  return { task: 'vina.dock', parameters, artifacts: { receptor }, items, cores: 2 };
}

const mean = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

function scored(outcome: ItemOutcome | undefined): ScoredItem {
  if (outcome?.status !== 'scored') throw new Error(`not scored: ${outcome?.errorMessage}`);
  return outcome;
}

engineContract(
  `vina.dock${reason}`,
  {
    engine: () => engine,
    task: () => ({ task: 'vina.dock', parameters: PARAMETERS, artifacts: { receptor } }),
    good: ['CO', 'CCO'],
    bad: { smiles: 'CC(=O)[O-].[Na+]', errorClass: 'UNSUPPORTED_LIGAND' },
    badParameters: { parameters: { ...PARAMETERS, seed: 0 }, names: 'seed' },
    timeoutMs: 2 * MINUTE_MS,
  },
  run,
);

describe(`docking${reason}`, () => {
  // Published beside the host: raw scores −1.23, −3.16, −4.18 and −5.4 kcal/mol, clearly apart.
  run(
    'keeps the order of guests in β-cyclodextrin, and says both the raw and the corrected affinity',
    async () => {
      const naproxen = 'COc1ccc2cc([C@H](C)C(=O)O)ccc2c1';
      const guests = [naproxen, 'CO', ADAMANTANE, 'Oc1ccccc1'];
      const outcomes = (await collect(engine, dockingOf(guests, { exhaustiveness: 4 }))).map(scored);
      const affinities = outcomes.map(({ score }) => score!);
      const order = guests.toSorted((a, b) => affinities[guests.indexOf(a)]! - affinities[guests.indexOf(b)]!);
      expect(order).toEqual([naproxen, ADAMANTANE, 'Oc1ccccc1', 'CO']);
      const raw = outcomes.map(({ resultData }) => Number(resultData['raw_affinity']));
      for (const [index, published] of [-5.4, -1.23, -4.18, -3.16].entries()) {
        expect(Math.abs(raw[index]! - published)).toBeLessThan(0.25);
      }
      for (const { poses = [], score } of outcomes) {
        expect(poses[0]).toMatchObject({ replicate: 1, poseRank: 1, score, rmsdLb: 0, rmsdUb: 0 });
        expect(poses.map(({ poseRank }) => poseRank)).toEqual(poses.map((_, index) => index + 1));
      }
    },
    3 * MINUTE_MS,
  );

  run(
    'three replicas give a confidence, two give none, and cores change nothing',
    async () => {
      const three = scored((await collect(engine, dockingOf([ADAMANTANE], { replicas: 3, seed: -1 })))[0]);
      expect(three.confidenceScore).toBe(1);
      expect(three.resultData['replicas']).toMatchObject([{ seed: -1 }, { seed: 1 }, { seed: 2 }]);
      expect(new Set(three.poses?.map(({ replicate }) => replicate))).toEqual(new Set([1, 2, 3]));
      const two = dockingOf(['CO'], { replicas: 2 });
      const outcome = scored((await collect(engine, two))[0]);
      expect(outcome).not.toHaveProperty('confidenceScore');
      await expect(collect(engine, { ...two, cores: 1 })).resolves.toEqual([outcome]);
    },
    2 * MINUTE_MS,
  );

  run(
    'a pose is a structure of the molecule that was docked, hydrogens on carbon left implicit',
    async () => {
      const rdkit = await (initialize as unknown as typeof initialize.default)();
      const canonical = (text: string): string => {
        const molecule = rdkit.get_mol(text, JSON.stringify({ removeHs: true }))!;
        try {
          return molecule.get_smiles();
        } finally {
          molecule.delete();
        }
      };
      const guests = ['C[C@H](N)C(=O)O', 'C[N+](C)(C)CC([O-])=O', 'O=[N+]([O-])c1ccccc1O'];
      const outcomes = (await collect(engine, dockingOf(guests))).map(scored);
      for (const [index, { poses = [] }] of outcomes.entries()) {
        expect(poses.map(({ molBlock }) => canonical(molBlock!))).toEqual(poses.map(() => canonical(guests[index]!)));
        const lines = poses[0]!.molBlock!.split('\n');
        const atoms = lines.slice(4, 4 + Number(lines[3]!.slice(0, 3)));
        const centre = [0, 10, 20].map((at) => mean(atoms.map((line) => Number(line.slice(at, at + 10)))));
        const box = [PARAMETERS.center_x, PARAMETERS.center_y, PARAMETERS.center_z];
        // In the receptor's frame: inside the box.
        centre.forEach((value, axis) => expect(Math.abs(value - box[axis]!)).toBeLessThan(10));
      }
    },
    3 * MINUTE_MS,
  );

  run(
    'replicas that are known do not run again: what comes out is what running all gives',
    async () => {
      const outcomeOf = async (replicas: number, prior?: EngineItem['prior']) => {
        const task = dockingOf([ADAMANTANE], { replicas, seed: -1 });
        return scored((await collect(engine, { ...task, items: [{ ...task.items[0]!, prior }] }))[0]);
      };
      const known = ({ resultData, poses = [] }: ScoredItem) => ({ resultData: structuredClone(resultData), poses });
      const three = await outcomeOf(3);
      const four = await outcomeOf(4, known(three));
      expect(four).toEqual(await outcomeOf(4));
      // Had it run again, it would not say what was made up here.
      const marked = known(three);
      const [first] = marked.resultData['replicas'] as Record<string, unknown>[];
      marked.poses = marked.poses.map((pose) =>
        pose.replicate === 1 && pose.poseRank === 1 ? { ...pose, score: -19, rawScore: -18 } : pose,
      );
      expect(await outcomeOf(4, marked)).toMatchObject({ score: -19, resultData: { raw_affinity: -18 } });
      // Of another seed, or without its atoms or structures, nothing is taken.
      first!['seed'] = 7;
      expect(await outcomeOf(4, marked)).toEqual(four);
      expect(await outcomeOf(4, { ...known(three), poses: [] })).toEqual(four);
      const bare = known(three);
      bare.poses = bare.poses.map((pose) => ({ ...pose, molBlock: '' }));
      expect(await outcomeOf(4, bare)).toEqual(four);
    },
    3 * MINUTE_MS,
  );

  run('a box off the receptor is refused before anything runs', async () => {
    const failure = collect(engine, dockingOf(['CO'], { center_x: 100 }));
    await expect(failure).rejects.toMatchObject({ errorClass: 'IMPLAUSIBLE', message: expect.stringContaining('box') });
  });

  run(
    'a box too small for the ligand is implausible, though Vina ends with exit code 0',
    async () => {
      const box = { size_x: 3, size_y: 3, size_z: 3, center_x: 5.2, center_y: -0.1, center_z: -0.8 };
      const [outcome] = await collect(engine, dockingOf(['CC(C)Cc1ccc(C(C)C(=O)O)cc1'], box));
      expect(outcome).toMatchObject({ status: 'failed', errorClass: 'IMPLAUSIBLE' });
    },
    MINUTE_MS,
  );

  run(
    'an element that has no PDBQT is refused',
    async () => {
      const [outcome] = await collect(engine, dockingOf(['C[Se]C']));
      expect(outcome).toMatchObject({
        errorClass: 'UNSUPPORTED_LIGAND',
        errorMessage: expect.stringContaining('element'),
      });
    },
    MINUTE_MS,
  );

  run('a broken receptor is refused with its line', async () => {
    const task = { ...dockingOf(['CO']), artifacts: { receptor: 'ATOM nonsense' } };
    await expect(collect(engine, task)).rejects.toMatchObject({ errorClass: 'INVALID_PARAMETER', message: /line 1/ });
  });

  run(
    'cancelling kills Vina and leaves no folder',
    async () => {
      const scratch = await mkdtemp(join(tmpdir(), 'mad-scratch-'));
      const controller = new AbortController();
      const long = dockingOf(['CCCCCCCCCCCCCCCC'], { exhaustiveness: 512 });
      const running = collect(createVinaEngine({ searchPath: SEARCH_PATH, scratch }), long, controller.signal);
      const searching = () => readdirSync(scratch).some((name) => existsSync(join(scratch, name, 'ligand.pdbqt')));
      while (!searching()) await new Promise((done) => setTimeout(done, 50));
      await new Promise((done) => setTimeout(done, 300));
      expect(processesIn(scratch)).toHaveLength(1);
      controller.abort(new Error('cancelled'));
      await expect(running).rejects.toThrow('cancelled');
      expect(processesIn(scratch)).toEqual([]);
      expect(readdirSync(scratch)).toEqual([]);
      await rm(scratch, { recursive: true });
    },
    MINUTE_MS,
  );
});

describe(`ligand preparation${reason}`, () => {
  run(
    'one SMILES gives one PDBQT, byte for byte, whatever came before and beside it',
    async () => {
      const cwd = await mkdtemp(join(tmpdir(), 'mad-ligand-'));
      const options = { obabel: 'obabel', searchPath: SEARCH_PATH, cwd, signal: new AbortController().signal };
      const first = await prepareLigand(QUININE, options);
      const [again] = await Promise.all([prepareLigand(QUININE, options), prepareLigand(ADAMANTANE, options)]);
      expect(again).toEqual(first);
      expect(first.pdbqt).toMatch(/^TORSDOF \d+$/m);
      await rm(cwd, { recursive: true });
    },
    2 * MINUTE_MS,
  );

  test('the recipe names the OpenChemLib that is installed', () => {
    const manifest = new URL('../package.json', import.meta.resolve('openchemlib'));
    const { version } = JSON.parse(readFileSync(manifest, 'utf8')) as { version: string };
    expect(LIGAND_RECIPE).toBe(`openchemlib-${version.replace(/\.\d+$/, '')}+obabel-3.1.1`);
  });
});

describe('machines without a usable Vina', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'mad-programs-'));
  });
  afterAll(() => rm(folder, { recursive: true }));

  async function program(name: string, script: string): Promise<void> {
    await writeFile(join(folder, name), `#!/bin/sh\n${script}\n`);
    await chmod(join(folder, name), 0o755);
  }

  test('no Vina: the reason says how to get it', async () => {
    const absent = await createVinaEngine({ searchPath: folder }).available();
    expect(absent).toEqual({ ok: false, reason: expect.stringContaining('apt-get install autodock-vina openbabel') });
  });

  test('another Vina or another Open Babel than the recipe’s is refused', async () => {
    const other = createVinaEngine({ searchPath: folder });
    await program('vina', 'echo "AutoDock Vina 1.1.2 (May 11, 2011)"');
    await expect(other.available()).resolves.toEqual({ ok: false, reason: expect.stringContaining('found 1.1.2') });
    await program('vina', 'echo "AutoDock Vina v1.2.5"');
    await program('obabel', 'echo "Open Babel 2.4.1"');
    await expect(other.available()).resolves.toEqual({ ok: false, reason: expect.stringContaining('2.4.1') });
    await expect(other.version()).resolves.toBe('1.2.5');
  });

  run(
    'what Vina said before it failed is in the message; a search that takes too long is a TIMEOUT',
    async () => {
      const path = `${folder}:${SEARCH_PATH}`;
      await rm(join(folder, 'obabel'), { force: true });
      const version = 'if [ "$1" = --version ]; then echo "AutoDock Vina v1.2.3"; exit 0; fi';
      await program('vina', `${version}\necho "std::bad_alloc" >&2; exit 3`);
      const failing = createVinaEngine({ searchPath: path });
      const [outcome] = await collect(failing, dockingOf(['CO']));
      expect(outcome).toMatchObject({
        errorClass: 'ENGINE_FAILED',
        errorMessage: expect.stringMatching(/exit code 3: std::bad_alloc/),
      });
      await program('vina', `${version}\nsleep 60`);
      const slow = createVinaEngine({ searchPath: path, searchTimeoutMs: 300 });
      await expect(collect(slow, dockingOf(['CO']))).resolves.toMatchObject([{ errorClass: 'TIMEOUT' }]);
    },
    MINUTE_MS,
  );
});

/** Process ids whose home is below the folder (Linux). */
function processesIn(folder: string): string[] {
  const ids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return ids.filter((id) => {
    try {
      return readFileSync(`/proc/${id}/environ`, 'utf8').includes(`HOME=${folder}/`);
    } catch {
      return false;
    }
  });
}
