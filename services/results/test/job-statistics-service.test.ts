import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { CachePolicy } from '@mad/proto/catalog';
import type { ScorePair } from '@mad/proto/results';
import { badTokens, bearer } from '@mad/testing';
import { driftOf } from './support/drift.ts';
import { failureOf } from './support/errors.ts';
import type { Molecule } from './support/neighbours.ts';
import { docking, openWorld, rows, similarity, type Organization, type World } from './support/world.ts';

let world: World;
let org: Organization;
let stranger: Organization;
let options: ReturnType<typeof bearer>;

beforeAll(async () => {
  world = await openWorld();
  org = await world.organization();
  stranger = await world.organization();
  options = bearer(org.token);
});

afterAll(() => world.close());

let fresh = 0;
const newMolecules = (count: number): Molecule[] =>
  Array.from({ length: count }, () => {
    fresh += 1;
    return { moleculeId: uuidv7(), smiles: `C${'N'.repeat(fresh % 90)}.${'O'.repeat(1 + Math.floor(fresh / 90))}` };
  });

/** Makes a job and runs all of it; `score` of an item, or the kind of its error. */
async function ranJob(
  molecules: Molecule[],
  score: (itemNo: number) => number | string,
  plan = docking({ chunkSize: 3 }),
) {
  const { jobId, runnable } = await world.materialize(org, { molecules, plans: [plan], policy: CachePolicy.BYPASS });
  for (const { taskExecutionId } of runnable) {
    await world.run(org, taskExecutionId, (_smiles, itemNo) => {
      const said = score(itemNo);
      return typeof said === 'string' ? { errorClass: said, errorMessage: `${said} of ${itemNo}` } : { score: said };
    });
  }
  return jobId;
}

const histogram = (jobId: string, changes: object = {}) =>
  world.statistics.getScoreHistogram({ orgId: org.orgId, jobId, ...changes }, options);

test('a histogram holds every score in the bin it belongs to, at the edges too', async () => {
  const scores = [-7.3, -7.25, -7.21, -7.2, -0.1, 0, 0.05, 0.1, -50, 50];
  const jobId = await ranJob(newMolecules(scores.length), (itemNo) => scores[itemNo - 1]!);
  const found = await histogram(jobId);
  expect(found).toMatchObject({
    taskId: 'dock',
    scoreUnits: 'kcal/mol',
    lowerIsBetter: true,
    items: 10n,
    binWidth: 0.1,
  });
  expect(found.bins.map(({ low, items }) => [low, Number(items)])).toEqual([
    [-50, 1],
    [-7.3, 3],
    [-7.2, 1],
    [-0.1, 1],
    [0, 2],
    [0.1, 1],
    [50, 1],
  ]);
  const hundredths = [0.29, 0.57, 0.58, 1, 0];
  const similar = await ranJob(newMolecules(5), (itemNo) => hundredths[itemNo - 1]!, similarity());
  expect((await histogram(similar)).bins.map(({ low }) => low)).toEqual([0, 0.29, 0.57, 0.58, 1]);
});

test('joined bins are the sum of the finest; quantiles are within half a bin of the exact ones', async () => {
  const scores = Array.from({ length: 60 }, (_one, index) => Math.round(Math.sin(index) * 6000 - 5000) / 1000);
  const jobId = await ranJob(newMolecules(scores.length), (itemNo) => scores[itemNo - 1]!, docking({ chunkSize: 20 }));
  const probabilities = [0, 0.01, 0.25, 0.5, 0.9, 1];
  const finest = await histogram(jobId, { probabilities });
  const sorted = scores.toSorted((a, b) => a - b);
  for (const { probability, score } of finest.quantiles) {
    const exact = sorted[Math.max(1, Math.ceil(probability * sorted.length)) - 1]!;
    expect(Math.abs(score - exact)).toBeLessThanOrEqual(finest.resolution / 2 + 1e-9);
  }
  expect(finest.quantiles.map(({ probability }) => probability)).toEqual(probabilities);
  for (const maxBins of [2, 3, 10, 40, 1000]) {
    const { bins, binWidth, items, quantiles } = await histogram(jobId, { maxBins, probabilities });
    expect(bins.length).toBeLessThanOrEqual(maxBins);
    expect([items, quantiles]).toEqual([60n, finest.quantiles]);
    for (const { low, items: count } of bins) {
      const within = scores.filter((score) => score >= low - 1e-9 && score < low + binWidth - 1e-9);
      expect(Number(count)).toBe(within.length);
    }
  }
});

test('what is kept while results arrive is what counting all of it gives: scored, cached, followers, failed', async () => {
  const tenant = await world.organization();
  const molecules = newMolecules(9);
  const twice = [...molecules, molecules[0]!, molecules[1]!, molecules[2]!];
  for (const policy of [CachePolicy.USE, CachePolicy.USE, CachePolicy.REFRESH, CachePolicy.ONLY]) {
    const more = [...twice, ...newMolecules(3)];
    const made = await world.materialize(tenant, { molecules: more, plans: [docking({ chunkSize: 4 })], policy });
    for (const { taskExecutionId } of made.runnable) {
      await world.run(tenant, taskExecutionId, (_smiles, itemNo) => {
        if (itemNo === 3) return undefined;
        return itemNo % 5 === 2 ? { errorClass: 'TIMEOUT', errorMessage: 'x' } : { score: -itemNo / 7 };
      });
    }
    expect(await driftOf(tenant)).toEqual([]);
  }
  const kinds = await rows(tenant, 'SELECT DISTINCT error_class FROM failure_counts ORDER BY 1');
  expect(kinds).toEqual([{ error_class: 'CACHE_MISS' }, { error_class: 'MISSING_RESULT' }, { error_class: 'TIMEOUT' }]);
  // The check can fail.
  await rows(
    tenant,
    'UPDATE score_histograms SET items = items + 1 WHERE bin = (SELECT min(bin) FROM score_histograms)',
  );
  expect(await driftOf(tenant)).not.toEqual([]);
});

test('coverage says how items ended, and failures by kind, most frequent first, each with its first item', async () => {
  const jobId = await ranJob(newMolecules(10), (itemNo) =>
    itemNo > 8 ? 'IMPLAUSIBLE' : itemNo > 4 ? 'TIMEOUT' : -itemNo,
  );
  const coverage = await world.statistics.getJobCoverage({ orgId: org.orgId, jobId }, options);
  expect(coverage.counters).toMatchObject({ requested: 10n, scored: 4n, failed: 6n, pending: 0n });
  expect(coverage.tasks).toMatchObject([
    {
      taskId: 'dock',
      counters: { failed: 6n },
      failures: [
        { errorClass: 'TIMEOUT', items: 4n, exampleItemNo: 5, exampleMessage: 'TIMEOUT of 5' },
        { errorClass: 'IMPLAUSIBLE', items: 2n, exampleItemNo: 9, exampleMessage: 'IMPLAUSIBLE of 9' },
      ],
    },
  ]);
  const failed = (errorClass: string) =>
    world.jobRuns.listWorkItems({ orgId: org.orgId, jobId, errorClass, pageSize: 3 }, options);
  expect((await failed('TIMEOUT')).items.map(({ itemNo }) => itemNo)).toEqual([5, 6, 7]);
  expect((await failed('NOTHING')).items).toEqual([]);
});

async function allPairs(jobId: string, otherJobId: string, pageSize: number): Promise<ScorePair[]> {
  const pairs: ScorePair[] = [];
  for (let pageToken = ''; ;) {
    const request = { orgId: org.orgId, jobId, otherJobId, pageSize, pageToken };
    const page = await world.statistics.listScorePairs(request, options);
    pairs.push(...page.pairs);
    if (page.nextPageToken === '') return pairs;
    pageToken = page.nextPageToken;
  }
}

test('two jobs are compared molecule by molecule, with both ranks, in pages without loss', async () => {
  const common = newMolecules(12);
  const scoreA = (index: number) => -5 - (index % 5) / 10;
  const scoreB = (index: number) => -4 - ((index * 7) % 12) / 10;
  // One molecule twice in the first, some only in one, one failed in the other, another order.
  const inA = [...common, common[3]!, ...newMolecules(3)];
  const inB = [...newMolecules(4), ...common.toReversed()];
  const place = new Map(common.map(({ moleculeId }, index) => [moleculeId, index]));
  const a = await ranJob(inA, (itemNo) => scoreA(place.get(inA[itemNo - 1]!.moleculeId) ?? 99));
  const b = await ranJob(inB, (itemNo) => {
    const index = place.get(inB[itemNo - 1]!.moleculeId);
    return index === 11 ? 'TIMEOUT' : index === undefined ? -9 : scoreB(index);
  });
  const whole = await allPairs(a, b, 100);
  expect(whole.map(({ moleculeId }) => place.get(moleculeId)).toSorted((x, y) => x! - y!)).toEqual([
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10,
  ]);
  const othersB = [-9, -9, -9, -9, ...Array.from({ length: 11 }, (_one, index) => scoreB(index))];
  for (const pair of whole) {
    const index = place.get(pair.moleculeId)!;
    expect(pair.score).toBe(scoreA(index));
    expect(pair.otherScore).toBe(scoreB(index));
    expect(pair.difference).toBe(pair.otherScore - pair.score);
    expect(pair.otherRank).toBe(1 + othersB.filter((score) => score < pair.otherScore).length);
    expect(pair.otherRankEstimated).toBe(false);
  }
  expect(whole.map(({ score }) => score)).toEqual(whole.map(({ score }) => score).toSorted((x, y) => x - y));
  const { hits } = await world.jobRuns.listHits({ orgId: org.orgId, jobId: a, pageSize: 100 }, options);
  for (const { itemNo, rank } of whole) expect(hits[rank - 1]?.itemNo).toBe(itemNo);
  for (const size of [1, 3, 11]) expect(await allPairs(a, b, size)).toEqual(whole);
  expect(await allPairs(a, await ranJob(newMolecules(2), () => -1), 10)).toEqual([]);
});

/** Pearson's correlation, by its definition. */
function pearson(xs: number[], ys: number[]): number {
  const mean = (all: number[]) => all.reduce((sum, one) => sum + one, 0) / all.length;
  const [mx, my] = [mean(xs), mean(ys)];
  const product = (as: number[], ma: number, bs: number[], mb: number) =>
    as.reduce((sum, one, index) => sum + (one - ma) * (bs[index]! - mb), 0);
  return product(xs, mx, ys, my) / Math.sqrt(product(xs, mx, xs, mx) * product(ys, my, ys, my));
}

test('agreement is Pearson’s and Spearman’s, equal scores sharing their mean rank', async () => {
  const molecules = newMolecules(15);
  const xs = molecules.map((_one, index) => -((index * 4) % 9) / 2);
  const ys = molecules.map((_one, index) => -((index * index) % 7) / 3);
  const [a, b] = [await ranJob(molecules, (no) => xs[no - 1]!), await ranJob(molecules, (no) => ys[no - 1]!)];
  const meanRanks = (all: number[]) =>
    all.map((one) => all.filter((other) => other < one).length + (all.filter((other) => other === one).length + 1) / 2);
  const agreement = await world.statistics.getScoreAgreement({ orgId: org.orgId, jobId: a, otherJobId: b }, options);
  expect(agreement).toMatchObject({ pairs: 15n, scoreUnits: 'kcal/mol' });
  expect(agreement.pearson).toBeCloseTo(pearson(xs, ys), 10);
  expect(agreement.spearman).toBeCloseTo(pearson(meanRanks(xs), meanRanks(ys)), 10);
  const differences = xs.map((x, index) => ys[index]! - x);
  expect(agreement.meanDifference).toBeCloseTo(differences.reduce((sum, one) => sum + one, 0) / 15, 10);
  expect(agreement.rmsDifference).toBeCloseTo(Math.sqrt(differences.reduce((sum, one) => sum + one * one, 0) / 15), 10);
  const alone = await ranJob(newMolecules(1), () => -1);
  const none = await world.statistics.getScoreAgreement({ orgId: org.orgId, jobId: a, otherJobId: alone }, options);
  expect(none).toMatchObject({ pairs: 0n });
  expect([none.pearson, none.spearman, none.meanDifference, none.rmsDifference]).toEqual([
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
});

test('scores that do not compare, and what was made up, are refused, naming the field', async () => {
  const [docked, similar] = [
    await ranJob(newMolecules(1), () => -1),
    await ranJob(newMolecules(1), () => 1, similarity()),
  ];
  const request = { orgId: org.orgId, jobId: docked, otherJobId: similar };
  const field = (name: string) => ({ code: 'invalid_argument', fields: [name] });
  expect(await failureOf(world.statistics.listScorePairs(request, options))).toEqual(field('other_task_id'));
  expect(await failureOf(world.statistics.getScoreAgreement(request, options))).toEqual(field('other_task_id'));
  const wrongTask = { ...request, otherJobId: docked, otherTaskId: 'x' };
  expect(await failureOf(world.statistics.listScorePairs(wrongTask, options))).toEqual(field('other_task_id'));
  expect(await failureOf(histogram(docked, { taskId: 'x' }))).toEqual(field('task_id'));
  expect(await failureOf(histogram(docked, { maxBins: 1 }))).toEqual(field('max_bins'));
  expect(await failureOf(histogram(docked, { probabilities: [1.5] }))).toEqual(field('probabilities[0]'));
  const unscored = await ranJob(newMolecules(1), () => 'X', similarity({ scoreUnits: '' }));
  expect(await failureOf(histogram(unscored))).toEqual(field('task_id'));
  expect(await failureOf(histogram(unscored, { taskId: 'screen' }))).toEqual(field('task_id'));
});

test('no way leads into another organization, and no token but a reader’s opens one', async () => {
  const jobId = await ranJob(newMolecules(2), () => -1);
  const calls = (orgId: string, call: ReturnType<typeof bearer>) => {
    const request = { orgId, jobId, otherJobId: jobId };
    return [
      world.statistics.getJobCoverage(request, call),
      world.statistics.getScoreHistogram(request, call),
      world.statistics.listScorePairs(request, call),
      world.statistics.getScoreAgreement(request, call),
    ];
  };
  for (const call of calls(org.orgId, options)) expect(await failureOf(call)).toBeUndefined();
  for (const call of calls(stranger.orgId, bearer(stranger.token))) {
    expect(await failureOf(call)).toEqual({ code: 'not_found', reason: 'RESOURCE_NOT_FOUND' });
  }
  for (const call of calls(org.orgId, bearer(stranger.token))) {
    expect(await failureOf(call)).toEqual({ code: 'not_found', reason: 'ORGANIZATION_NOT_FOUND' });
  }
  for (const token of Object.values(await badTokens({ orgId: org.orgId, permissions: ['jobs.read'] }))) {
    for (const call of calls(org.orgId, bearer(token))) expect((await failureOf(call))?.code).toBe('unauthenticated');
  }
});
