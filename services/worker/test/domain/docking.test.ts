import { describe, expect, test } from '@jest/globals';
import { convergence, tolerantRmsd } from '../../src/domain/convergence.ts';
import { dockingParameters, replicaSeeds } from '../../src/domain/docking-parameters.ts';
import type { PoseAtom, VinaPose } from '../../src/domain/vina-output.ts';
import { readVinaOutput } from '../../src/domain/vina-output.ts';
import { isPlausible, needsCorrection, scorePoses } from '../../src/domain/vina-score.ts';

// Two of nine poses of naproxen in β-cyclodextrin, as Vina 1.2.3 printed them; UNBOUND is the ninth pose's INTRA.
const OUTPUT = `MODEL 1
REMARK VINA RESULT:    -5.395      0.000      0.000
REMARK INTER + INTRA:          -6.766
REMARK INTER:                  -6.473
REMARK INTRA:                  -0.293
REMARK UNBOUND:                -0.267
ROOT
ATOM      1  C   UNL     1      -1.773  -1.320  -0.670  0.00  0.00    +0.121 A 
ATOM      2  H   UNL     1       2.086  -7.274   1.447  0.00  0.00    +0.295 HD
ENDROOT
TORSDOF 4
ENDMDL
MODEL 2
REMARK VINA RESULT:    -5.391      1.583      1.926
REMARK INTER + INTRA:          -6.762
REMARK INTER:                  -6.413
REMARK INTRA:                  -0.349
REMARK UNBOUND:                -0.267
ROOT
ATOM      1  C   UNL     1      -1.700  -1.300  -0.600  0.00  0.00    +0.121 A 
ENDROOT
TORSDOF 4
ENDMDL
`;

function pose(changes: Partial<VinaPose>): VinaPose {
  return { rank: 1, raw: -1, rmsdLb: 0, rmsdUb: 0, inter: -1, intra: 0, unbound: 0, atoms: [], ...changes };
}

describe('readVinaOutput', () => {
  test('reads every number and atom of every pose', () => {
    const [first, second] = readVinaOutput(OUTPUT);
    expect(first).toEqual({
      rank: 1,
      raw: -5.395,
      rmsdLb: 0,
      rmsdUb: 0,
      inter: -6.473,
      intra: -0.293,
      unbound: -0.267,
      atoms: [
        { type: 'A', position: [-1.773, -1.32, -0.67] },
        { type: 'HD', position: [2.086, -7.274, 1.447] },
      ],
    });
    expect(second).toMatchObject({ rank: 2, raw: -5.391, rmsdLb: 1.583, rmsdUb: 1.926 });
  });

  test('an empty file has no pose; a pose without a number is refused by its name', () => {
    expect(readVinaOutput('')).toEqual([]);
    expect(() => readVinaOutput(OUTPUT.replace(/REMARK UNBOUND.*\n/, ''))).toThrow(
      "pose 1 of Vina's output has no unbound",
    );
    expect(() => readVinaOutput(OUTPUT.replace('-5.391', '  nan '))).toThrow('no raw');
  });
});

describe('scorePoses', () => {
  test('1.2.3: the unbound energy becomes the best pose’s; N is 3.5, not the TORSDOF of 4', () => {
    const scored = scorePoses('1.2.3', readVinaOutput(OUTPUT));
    const divisor = 1 + 0.05846 * 3.5;
    expect(scored?.torsions).toBe(3.5);
    expect(scored?.poses[0]).toEqual({ poseRank: 1, score: -5.374, rawScore: -5.395, rmsdLb: 0, rmsdUb: 0 });
    expect(scored?.poses[0]?.score).toBeCloseTo(-6.473 / divisor, 3);
    expect(scored?.poses[1]?.score).toBeCloseTo((-6.413 - 0.349 + 0.293) / divisor, 3);
  });

  test('a rigid ligand’s score stays what was printed', () => {
    expect(scorePoses('1.2.3', [pose({ raw: -4.173, inter: -4.173 })])).toMatchObject({
      torsions: 0,
      poses: [{ score: -4.173, rawScore: -4.173 }],
    });
  });

  test('a huge wrong unbound energy leaves no trace in the score', () => {
    const raw = (-6.473 - 0.293 - 182.7) / (1 + 0.05846 * 3.5);
    const wild = pose({ raw: Number(raw.toFixed(3)), inter: -6.473, intra: -0.293, unbound: 182.7 });
    expect(scorePoses('1.2.3', [wild])?.poses[0]).toMatchObject({ score: -5.374, rawScore: wild.raw });
  });

  test('later versions are taken as printed', () => {
    const poses = readVinaOutput(OUTPUT);
    expect(scorePoses('1.2.5', poses)?.poses.map(({ score }) => score)).toEqual([-5.395, -5.391]);
    expect(['1.2.0', '1.2.2', '1.2.3', '1.2.4', '1.2.7', '1.3.0', '1.1.2'].filter(needsCorrection)).toEqual([
      '1.2.0',
      '1.2.2',
      '1.2.3',
    ]);
  });

  test('numbers that contradict each other are refused', () => {
    const [first, second] = readVinaOutput(OUTPUT);
    expect(scorePoses('1.2.3', [first!, { ...second!, inter: -9 }])).toBeUndefined();
    expect(scorePoses('1.2.3', [])).toBeUndefined();
  });
});

test.each([
  [-5.4, true],
  [-50, true],
  [-50.001, false],
  [-0, false],
  [0, false],
  [12_345_678, false],
  [Number.NaN, false],
  [Number.NEGATIVE_INFINITY, false],
])('%d kcal/mol is plausible: %s', (score, plausible) => {
  expect(isPlausible(score)).toBe(plausible);
});

describe('convergence', () => {
  const at = (x: number, type = 'C'): PoseAtom => ({ type, position: [x, 0, 0] });
  const top = (score: number, atoms: PoseAtom[]) => ({ score, atoms });

  test('is the fraction of replicas that found the best pose again, and null below three', () => {
    const here = [at(0), at(1)];
    const near = [at(1.5), at(2.5)];
    const far = [at(9), at(10)];
    expect(convergence([top(-5, here), top(-4, near), top(-3, far)])).toBeCloseTo(2 / 3);
    expect(convergence([top(-3, here), top(-4, near), top(-5, far)])).toBeCloseTo(1 / 3);
    expect(convergence([top(-5, here), top(-5, here), top(-5, here), top(-5, far)])).toBe(0.75);
    expect(convergence([top(-5, here), top(-4, here)])).toBeNull();
  });

  test('a symmetric ligand turned onto itself has not moved; another element there has', () => {
    const ligand = [at(0, 'A'), at(5, 'C'), at(2, 'OA')];
    expect(tolerantRmsd(ligand, [at(5, 'A'), at(0, 'C'), at(2, 'OA')])).toBe(0);
    expect(tolerantRmsd(ligand, [at(0, 'OA'), at(5, 'C'), at(2, 'A')])).toBeGreaterThan(1);
    expect(tolerantRmsd([at(0), at(7, 'HD')], [at(3), at(0, 'HD')])).toBe(3);
  });
});

describe('dockingParameters', () => {
  const good = {
    center_x: 1.363,
    center_y: -1.742,
    center_z: 2.94,
    size_x: 20,
    size_y: 21,
    size_z: 22,
    exhaustiveness: 8,
    num_modes: 9,
    energy_range: 3,
    seed: 42,
    replicas: 3,
  };

  test('reads what catalog hashed', () => {
    expect(dockingParameters(good)).toEqual({
      box: { center: [1.363, -1.742, 2.94], size: [20, 21, 22] },
      exhaustiveness: 8,
      numModes: 9,
      energyRange: 3,
      seed: 42,
      replicas: 3,
    });
  });

  test.each([
    ['seed', 0],
    ['seed', 1.5],
    ['seed', 2 ** 31],
    ['seed', '42'],
    ['center_x', Number.NaN],
    ['size_y', 0],
    ['exhaustiveness', 0],
    ['num_modes', 2.5],
    ['energy_range', -1],
    ['replicas', 0],
    ['replicas', undefined],
  ])('refuses %s = %p by name', (name, value) => {
    expect(() => dockingParameters({ ...good, [name]: value })).toThrow(name);
  });

  test('replica seeds count up, never reach 0, and start over after the largest', () => {
    expect(replicaSeeds({ seed: 42, replicas: 3 })).toEqual([42, 43, 44]);
    expect(replicaSeeds({ seed: -1, replicas: 3 })).toEqual([-1, 1, 2]);
    expect(replicaSeeds({ seed: 2_147_483_647, replicas: 2 })).toEqual([2_147_483_647, -2_147_483_648]);
  });
});
