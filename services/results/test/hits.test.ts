import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import type { WorkItem } from '@mad/proto/results';
import { bearer } from '@mad/testing';
import { failureOf } from './support/errors.ts';
import type { Molecule } from './support/neighbours.ts';
import { docking, openWorld, rows, similarity, type Organization, type World } from './support/world.ts';

let world: World;
let org: Organization;
let options: ReturnType<typeof bearer>;
let jobId: string;
let similarJob: string;

/** Sixty molecules with properties, but every seventh; the last five are the first five again. */
const molecules: Molecule[] = Array.from({ length: 60 }, (_one, index) => ({
  moleculeId: uuidv7(),
  smiles: `C${'N'.repeat(index)}`,
  ...(index % 7 === 6
    ? {}
    : {
        properties: {
          molecularWeight: 100 + 10 * index,
          logp: (index % 9) - 2,
          tpsa: index * 2.5,
          hbd: index % 4,
          hba: index % 6,
          rotatableBonds: index % 11,
        },
      }),
}));
const input = [...molecules, ...molecules.slice(0, 5)];
const scoreOf = (itemNo: number): number => -4 - ((itemNo * 17) % 23) / 5;

beforeAll(async () => {
  world = await openWorld();
  org = await world.organization();
  options = bearer(org.token);
  const run = async (job: Awaited<ReturnType<World['materialize']>>, score: (itemNo: number) => number) => {
    for (const { taskExecutionId } of job.runnable) {
      await world.run(org, taskExecutionId, (_smiles, itemNo) =>
        score(itemNo) < 0 && itemNo % 2 === 1
          ? {
              score: score(itemNo),
              poses: [1, 2].map((poseRank) => ({
                replicate: 1,
                poseRank,
                score: score(itemNo) + poseRank - 1,
                rawScore: -1,
                rmsdLb: 0,
                rmsdUb: 0,
              })),
            }
          : { score: score(itemNo) },
      );
    }
  };
  // The first twenty are known from an earlier job.
  await run(
    await world.materialize(org, { molecules: molecules.slice(0, 20), plans: [docking({ chunkSize: 50 })] }),
    scoreOf,
  );
  const made = await world.materialize(org, { molecules: input, plans: [docking({ chunkSize: 50 })] });
  jobId = made.jobId;
  await run(made, scoreOf);
  const similar = await world.materialize(org, { molecules: input, plans: [similarity({ chunkSize: 50 })] });
  similarJob = similar.jobId;
  await run(similar, (itemNo) => ((itemNo * 17) % 23) / 23);
});

afterAll(() => world.close());

async function hits(request: object, pageSize = 1000): Promise<WorkItem[]> {
  const found: WorkItem[] = [];
  for (let pageToken = ''; ;) {
    const page = await world.jobRuns.listHits({ orgId: org.orgId, jobId, pageSize, pageToken, ...request }, options);
    expect(page.hits.length).toBeLessThanOrEqual(pageSize);
    found.push(...page.hits);
    if (page.nextPageToken === '') return found;
    pageToken = page.nextPageToken;
  }
}

const firstOfMolecule = (all: WorkItem[]) => (hit: WorkItem) =>
  !all.some((other) => other.moleculeId === hit.moleculeId && other.itemNo < hit.itemNo);

test.each<[string, object, (hit: WorkItem, all: WorkItem[]) => boolean]>([
  ['score <= -6', {}, ({ score }) => score! <= -6],
  ['score < -5 AND score > -7', {}, ({ score }) => score! < -5 && score! > -7],
  ['score = -5.8', {}, ({ score }) => score === -5.8],
  ['molecular_weight < 300', {}, ({ properties }) => properties !== undefined && properties.molecularWeight < 300],
  [
    'hbd <= 1.5 AND hba = 3 AND rotatable_bonds >= 2',
    {},
    ({ properties: p }) => p !== undefined && p.hbd <= 1 && p.hba === 3 && p.rotatableBonds >= 2,
  ],
  [
    'logp > 0 AND tpsa <= 60 AND score < -5',
    {},
    ({ properties: p, score }) => p !== undefined && p.logp > 0 && p.tpsa <= 60 && score! < -5,
  ],
  ['source = cached', {}, ({ reusedFromJobId }) => reusedFromJobId !== ''],
  ['source = fresh', {}, ({ reusedFromJobId }) => reusedFromJobId === ''],
  ['rank <= 10', {}, ({ rank }) => rank <= 10],
  ['rank <= 20 AND source = fresh', {}, ({ rank, reusedFromJobId }) => rank <= 20 && reusedFromJobId === ''],
  ['', { bestPerMolecule: true }, (hit, all) => firstOfMolecule(all)(hit)],
  [
    'tpsa < 50',
    { bestPerMolecule: true },
    (hit, all) => (hit.properties?.tpsa ?? 99) < 50 && firstOfMolecule(all)(hit),
  ],
  ['molecular_weight > 1000', {}, () => false],
])('%j %j gives exactly the hits it names, in their order, in pages without loss', async (filter, more, wanted) => {
  const all = await hits({});
  expect(all).toHaveLength(65);
  const expected = all.filter((hit) => wanted(hit, all));
  const ranked = !/score (=|>)/.test(filter);
  const strip = (hit: WorkItem) => ({ ...hit, rank: ranked ? hit.rank : 0 });
  for (const size of [1, 4, 7, 1000]) expect(await hits({ filter, ...more }, size)).toEqual(expected.map(strip));
});

test('where a higher score is better, filters and ranks go the other way', async () => {
  const all = await hits({ jobId: similarJob });
  expect(all.map(({ rank }) => rank)).toEqual(all.map((_hit, index) => index + 1));
  for (const filter of ['score >= 0.5', 'score >= 0.5 AND logp >= 0']) {
    const expected = all.filter(
      ({ score, properties }) => score! >= 0.5 && (filter.length < 15 || (properties?.logp ?? -1) >= 0),
    );
    expect(await hits({ jobId: similarJob, filter }, 3)).toEqual(expected);
  }
  expect((await hits({ jobId: similarJob, filter: 'score < 0.5' })).every(({ rank }) => rank === 0)).toBe(true);
});

test('a filter that selects almost nothing among many is answered in pages that may be empty, and ends', async () => {
  const many = await world.materialize(org, {
    molecules: molecules.slice(0, 3),
    plans: [similarity({ parameters: { reference: 'N' } })],
  });
  for (const { taskExecutionId } of many.runnable) await world.run(org, taskExecutionId, () => ({ score: 0.5 }));
  await rows(
    org,
    `INSERT INTO task_results (job_id, task_id, item_no, molecule_id, smiles, status, input_signature, score, ended_at,
        molecular_weight, logp, tpsa, hbd, hba, rotatable_bonds)
      SELECT $1, 'screen', 3 + n, gen_random_uuid(), 'C', 'scored', repeat('a', 64), (n % 1000) / 1000.0, now(),
        CASE n WHEN 51000 THEN 50 ELSE 500 END, 1, 1, 1, 1, 1
      FROM generate_series(1, 52000) n`,
    [many.jobId],
  );
  const pages: number[] = [];
  const found: WorkItem[] = [];
  for (let pageToken = ''; ;) {
    const request = { orgId: org.orgId, jobId: many.jobId, filter: 'molecular_weight < 100', pageToken };
    const page = await world.jobRuns.listHits(request, options);
    pages.push(page.hits.length);
    found.push(...page.hits);
    if (page.nextPageToken === '') break;
    pageToken = page.nextPageToken;
  }
  expect(pages.length).toBeGreaterThan(1);
  expect(found.filter(({ properties }) => properties?.molecularWeight === 50)).toMatchObject([{ itemNo: 51_003 }]);
});

test('hits show their best pose when asked, a cached one its source’s', async () => {
  expect((await hits({})).every(({ bestPose }) => bestPose === undefined)).toBe(true);
  const all = await hits({ includeBestPose: true });
  for (const { score, bestPose, itemNo, reusedFromItemNo } of all) {
    const source = reusedFromItemNo || itemNo;
    if (source % 2 === 1) expect(bestPose).toMatchObject({ replicate: 1, poseRank: 1, score });
    else expect(bestPose).toBeUndefined();
  }
  expect(all.some(({ reusedFromJobId, bestPose }) => reusedFromJobId !== '' && bestPose !== undefined)).toBe(true);
});

test('pages stay as they are while better and worse hits arrive: nothing seen twice, nothing lost', async () => {
  const fresh = Array.from({ length: 30 }, (_one, index) => ({
    moleculeId: uuidv7(),
    smiles: `O${'S'.repeat(index)}`,
  }));
  const made = await world.materialize(org, { molecules: fresh, plans: [docking({ chunkSize: 10 })] });
  const [one, two, three] = made.runnable.map(({ taskExecutionId }) => taskExecutionId) as [string, string, string];
  await world.run(org, one, (_smiles, itemNo) => ({ score: -5 - itemNo / 10 }));
  const seen: WorkItem[] = [];
  const read = async (pageToken: string) => {
    const page = await world.jobRuns.listHits({ orgId: org.orgId, jobId: made.jobId, pageSize: 4, pageToken }, options);
    seen.push(...page.hits);
    return page.nextPageToken;
  };
  let token = await read('');
  await world.run(org, two, (_smiles, itemNo) => ({ score: -9 - itemNo / 10 }));
  token = await read(token);
  await world.run(org, three, (_smiles, itemNo) => ({ score: -1 - itemNo / 10 }));
  while (token !== '') token = await read(token);
  const numbers = seen.map(({ itemNo }) => itemNo);
  expect(new Set(numbers).size).toBe(numbers.length);
  const firstAndThird = Array.from({ length: 30 }, (_one, index) => index + 1).filter((no) => no <= 10 || no > 20);
  expect(firstAndThird.filter((no) => !numbers.includes(no))).toEqual([]);
  expect(seen.map(({ score }) => score)).toEqual(seen.map(({ score }) => score).toSorted((a, b) => a! - b!));
});

test('a filter nobody can read, and a rank that cannot be known, are refused, naming the field', async () => {
  const refused = { code: 'invalid_argument', fields: ['filter'] };
  for (const filter of [
    'x',
    'score <= y',
    `score <= 1'; DROP TABLE jobs; --`,
    'rank <= 5 AND score > -7',
    'x'.repeat(1001),
  ]) {
    expect(await failureOf(hits({ filter }))).toEqual(refused);
  }
  const { nextPageToken } = await world.jobRuns.listHits(
    { orgId: org.orgId, jobId, pageSize: 1, filter: 'tpsa < 90' },
    options,
  );
  expect(await failureOf(hits({ filter: 'tpsa < 91', pageToken: nextPageToken }))).toEqual({
    code: 'invalid_argument',
    fields: ['page_token'],
  });
});
