import { create, toBinary } from '@bufbuild/protobuf';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { JobEventSchema, WorkItemSchema, type JobEvent, type WorkItem } from '@mad/proto/results';
import { CONTENT_BYTES } from '../src/domain/content.ts';
import { failureOf } from './support/errors.ts';
import { newSmiles } from './support/smiles.ts';
import { atomAt, readSdf } from './support/structures.ts';
import { bearer, docking, openWorld, rows, similarity, type Organization, type World } from './support/world.ts';

/** Clients take 4 MiB a message, the gateway among them: whatever a page was asked for, it must fit. */

let world: World;
let org: Organization;
/** Sixty items of 100 kB, all scored. */
let jobId: string;

const ITEMS = 60;
const said = (itemNo: number) => ({ log: `${itemNo} `.repeat(50_000).slice(0, 100_000), itemNo });

beforeAll(async () => {
  world = await openWorld();
  org = await world.organization();
  jobId = await largeJob();
});

afterAll(() => world.close());

const as = () => bearer(org.token);

async function largeJob(): Promise<string> {
  const plans = [similarity({ chunkSize: 20 })];
  const properties = { molecularWeight: 46.07, logp: -0.1, tpsa: 20.23, hbd: 1, hba: 1, rotatableBonds: 0 };
  const molecules = newSmiles(ITEMS).map((smiles) => ({ moleculeId: uuidv7(), smiles, properties }));
  const made = await world.materialize(org, { molecules, plans });
  for (const { taskExecutionId } of made.runnable) {
    await world.run(org, taskExecutionId, (_smiles, itemNo) => ({ score: itemNo / 100, resultData: said(itemNo) }));
  }
  return made.jobId;
}

interface Page<Row> {
  rows: Row[];
  nextPageToken: string;
}

async function pagesOf<Row>(read: (pageToken: string) => Promise<Page<Row>>): Promise<Row[][]> {
  const pages: Row[][] = [];
  for (let token = ''; ;) {
    const page = await read(token);
    pages.push(page.rows);
    if (page.nextPageToken === '') return pages;
    token = page.nextPageToken;
  }
}

const itemPages = (request: object = {}) =>
  pagesOf<WorkItem>(async (pageToken) => {
    const query = { orgId: org.orgId, jobId, pageSize: 1000, ...request, pageToken };
    const { items, nextPageToken } = await world.jobRuns.listWorkItems(query, as());
    return { rows: items, nextPageToken };
  });

const hitPages = (request: object = {}) =>
  pagesOf<WorkItem>(async (pageToken) => {
    const query = { orgId: org.orgId, jobId, pageSize: 1000, ...request, pageToken };
    const { hits, nextPageToken } = await world.jobRuns.listHits(query, as());
    return { rows: hits, nextPageToken };
  });

const bytesOf = (items: readonly WorkItem[]): number =>
  items.reduce((sum, item) => sum + toBinary(WorkItemSchema, create(WorkItemSchema, item)).length, 0);

test.each([0, 50, 1000])(
  'large items come whole over pages that end early, asked for %d at a time',
  async (pageSize) => {
    const pages = await itemPages({ pageSize });
    expect(pages.flat().map(({ itemNo }) => itemNo)).toEqual(Array.from({ length: ITEMS }, (_one, index) => index + 1));
    expect(pages.flat().map(({ resultData }) => resultData)).toEqual(
      Array.from({ length: ITEMS }, (_one, index) => said(index + 1)),
    );
    expect(pages.length).toBeGreaterThan(2);
    for (const page of pages) expect(bytesOf(page)).toBeLessThanOrEqual(CONTENT_BYTES);
    // As full as they may be: another item would not have fitted.
    for (const page of pages.slice(0, -1)) expect(bytesOf(page)).toBeGreaterThan(CONTENT_BYTES - 110_000);
  },
);

test.each([
  ['all', ''],
  ['those above a score', 'score >= 0.11'],
  ['those of a property', 'molecular_weight < 500 AND source = fresh'],
  ['the first ones', 'rank <= 45'],
])('large hits come best first, %s, with the ranks they have', async (_which, filter) => {
  const pages = await hitPages({ filter });
  const expected = Array.from({ length: ITEMS }, (_one, index) => ITEMS - index)
    .filter((itemNo) => !filter.startsWith('score') || itemNo >= 11)
    .slice(0, filter.startsWith('rank') ? 45 : ITEMS);
  expect(pages.flat().map(({ itemNo, rank }) => [itemNo, rank])).toEqual(
    expected.map((itemNo) => [itemNo, ITEMS - itemNo + 1]),
  );
  expect(pages.length).toBeGreaterThan(2);
  for (const page of pages) expect(bytesOf(page)).toBeLessThanOrEqual(CONTENT_BYTES);
});

test('one item alone is a page, however large it may be', async () => {
  const made = await world.materialize(org, { smiles: newSmiles(3), plans: [similarity({ chunkSize: 3 })] });
  await world.run(org, made.runnable[0]!.taskExecutionId, () => ({ score: 0.5, resultData: {} }));
  // As it may be kept from before there was a bound for it.
  await rows(
    org,
    `UPDATE task_results SET result_data = jsonb_build_object('log', repeat('y', 3000000)) WHERE job_id = $1`,
    [made.jobId],
  );
  const pages = await itemPages({ jobId: made.jobId });
  expect(pages.map((page) => page.map(({ itemNo }) => itemNo))).toEqual([[1], [2], [3]]);
});

test('what could never be sent back is refused with its row, and nothing of its batch is kept', async () => {
  const made = await world.materialize(org, { smiles: newSmiles(2), plans: [similarity()] });
  const { taskExecutionId: id } = made.runnable[0]!;
  await world.start(org, id);
  const lease = await world.lease(org, id, 1);
  const append = (resultData: string) =>
    world.stream([
      {
        ...lease,
        batch: 1,
        scored: { itemNo: [1, 2], score: [1, 1], scoreUnits: 'tanimoto', resultData: ['{"a":1}', resultData] },
      },
    ]);
  // Half a megabyte of text, and 2.6 MiB in a message.
  const numbers = `{"a":[${'1,'.repeat(250_000)}1]}`;
  await expect(append(numbers)).rejects.toThrow(
    /batch 1, row 2: scored\.result_data: takes \d+ bytes in an answer, and 2097152 fit/,
  );
  await expect(append(`{"a":${'['.repeat(40)}${']'.repeat(40)}}`)).rejects.toThrow(
    'batch 1, row 2: scored.result_data: nests deeper than 30 levels',
  );
  expect(await append('{"b":2}')).toMatchObject({ received: 2 });
});

test('items that failed with long words come whole over pages', async () => {
  const count = 700;
  const made = await world.materialize(org, { smiles: newSmiles(count), plans: [similarity({ chunkSize: count })] });
  const errorMessage = '☃'.repeat(4_000);
  const { taskExecutionId: id } = made.runnable[0]!;
  await world.start(org, id);
  const lease = await world.lease(org, id, 1);
  const messages = Array.from({ length: count / 100 }, (_one, index) => {
    const itemNo = Array.from({ length: 100 }, (_other, place) => index * 100 + place + 1);
    return {
      ...lease,
      batch: index + 1,
      failed: {
        itemNo,
        errorClass: itemNo.map(() => 'TIMEOUT'),
        errorMessage: itemNo.map(() => errorMessage),
      },
    };
  });
  await world.stream(messages);
  await world.finish(org, id);
  const pages = await itemPages({ jobId: made.jobId, errorClass: 'TIMEOUT' });
  expect(pages.flat()).toHaveLength(count);
  expect(new Set(pages.flat().map((item) => item.errorMessage))).toEqual(new Set([errorMessage]));
});

test('events of long words come whole, listed and watched', async () => {
  const made = await world.materialize(org, { smiles: newSmiles(1) });
  const count = 900;
  await rows(
    org,
    `INSERT INTO job_events (job_id, seq_no, event, detail)
      SELECT $1, n, 'execution.failed', repeat('☃', 4000) FROM generate_series(2, $2::int) AS n`,
    [made.jobId, count],
  );
  await rows(org, 'UPDATE jobs SET event_seq = $2 WHERE job_id = $1', [made.jobId, count]);
  await world.asCatalog.cancelJobRun({ orgId: org.orgId, jobId: made.jobId });
  const query = { orgId: org.orgId, jobId: made.jobId };
  const listed = await pagesOf<JobEvent>(async (pageToken) => {
    const { events, nextPageToken } = await world.jobRuns.listJobEvents({ ...query, pageSize: 1000, pageToken }, as());
    return { rows: events, nextPageToken };
  });
  const numbers = Array.from({ length: count + 1 }, (_one, index) => BigInt(index + 1));
  expect(listed.flat().map(({ seqNo }) => seqNo)).toEqual(numbers);
  const seen: bigint[] = [];
  for await (const { events } of world.jobRuns.watchJob(query, as())) {
    const bytes = events.reduce((sum, event) => sum + toBinary(JobEventSchema, event).length, 0);
    expect(bytes).toBeLessThanOrEqual(CONTENT_BYTES);
    seen.push(...events.map(({ seqNo }) => seqNo));
  }
  expect(seen).toEqual(numbers);
});

test('a file of large structures comes whole, in pieces that fit', async () => {
  const count = 60;
  // 90 kB of a molecule's own properties, as V2000 allows them after its atoms.
  const padding = `M  CHG  1   1   0\n`.repeat(5_000);
  const structure = (itemNo: number) => atomAt(itemNo).replace('M  END\n', `${padding}M  END\n`);
  const made = await world.materialize(org, { smiles: newSmiles(count), plans: [docking({ chunkSize: 20 })] });
  for (const { taskExecutionId } of made.runnable) {
    await world.run(org, taskExecutionId, (_smiles, itemNo) => ({
      score: itemNo / 10 - 10,
      resultData: { log: 'x'.repeat(20_000) },
      poses: [
        {
          replicate: 1,
          poseRank: 1,
          score: itemNo / 10 - 10,
          rawScore: -5,
          rmsdLb: 0,
          rmsdUb: 0,
          molBlock: structure(itemNo),
        },
      ],
    }));
  }
  const download = async (request: object) => {
    const pieces: Uint8Array[] = [];
    let last = { poses: 0n, withoutStructure: 0n };
    const query = { orgId: org.orgId, jobId: made.jobId, ...request };
    for await (const { content, ...counts } of world.poses.downloadPoses(query, as())) {
      expect(content.length).toBeLessThanOrEqual(CONTENT_BYTES);
      pieces.push(content);
      last = counts;
    }
    const records = readSdf(Buffer.concat(pieces).toString());
    return { places: records.map((record) => Number(record.structure.split('\n')[4]!.slice(0, 10))), last };
  };
  const itemNos = Array.from({ length: count }, (_one, index) => index + 1);
  const whole = { places: itemNos, last: { poses: BigInt(count), withoutStructure: 0n } };
  expect(await download({})).toMatchObject(whole);
  expect(await download({ filter: 'source = fresh' })).toMatchObject(whole);
  expect(await download({ itemNo: itemNos.toReversed() })).toMatchObject(whole);
});

test('a worker is given as many known replicas as fit into one answer, and runs the others anew', async () => {
  const smiles = newSmiles(30);
  const plans = (replicas: number) => [
    docking({ deterministic: true, chunkSize: 30, parameters: { seed: 42, replicas, receptor: 'artifact' } }),
  ];
  const padding = `M  CHG  1   1   0\n`.repeat(5_000);
  const molBlock = atomAt(1).replace('M  END\n', `${padding}M  END\n`);
  const first = await world.materialize(org, { smiles, plans: plans(2) });
  const { taskExecutionId: id } = first.runnable[0]!;
  const { items: asked } = await world.start(org, id);
  for (let start = 0; start < asked.length; start += 10) {
    const outcomes = asked.slice(start, start + 10).map(({ itemNo }) => ({
      itemNo,
      score: -8,
      resultData: { replicas: [{ seed: 42 }, { seed: 43 }] },
      poses: [1, 2].map((replicate) => ({
        replicate,
        poseRank: 1,
        score: -8,
        rawScore: -5,
        rmsdLb: 0,
        rmsdUb: 0,
        molBlock,
      })),
    }));
    await world.append(org, id, outcomes);
  }
  await world.finish(org, id);
  const more = await world.materialize(org, { smiles, plans: plans(3) });
  const { items } = await world.start(org, more.runnable[0]!.taskExecutionId);
  const known = items.map(({ prior }) => prior?.poses.length ?? 0);
  expect(items.map(({ itemNo }) => itemNo)).toEqual(smiles.map((_one, index) => index + 1));
  expect(known).toEqual(smiles.map((_one, index) => (index < 11 ? 2 : 0)));
  expect(items[0]!.prior!.poses[0]!.molBlock).toBe(molBlock);
});

test('what an organization invalidated for long reasons is listed whole', async () => {
  const reason = '☃'.repeat(1000);
  await rows(
    org,
    `INSERT INTO cache_invalidations (invalidation_id, predicate, reason, entries, jobs, created_by, created_at)
      SELECT gen_random_uuid(), $2, $1, 0, 0, '', now() - n * interval '1 second' FROM generate_series(1, 1500) AS n`,
    [reason, JSON.stringify({ smiles: '☃'.repeat(600) })],
  );
  const pages = await pagesOf(async (pageToken) => {
    const query = { orgId: org.orgId, pageSize: 1000, pageToken };
    const { invalidations, nextPageToken } = await world.cache.listCacheInvalidations(query, as());
    return { rows: invalidations, nextPageToken };
  });
  expect(new Set(pages.flat().map(({ invalidationId }) => invalidationId)).size).toBe(1500);
  expect(pages.flat()).toHaveLength(1500);
});

test('a page that ended early goes on with its own query only', async () => {
  const { nextPageToken } = await world.jobRuns.listWorkItems({ orgId: org.orgId, jobId, pageSize: 1000 }, as());
  const other = world.jobRuns.listHits({ orgId: org.orgId, jobId, pageToken: nextPageToken }, as());
  expect(await failureOf(other)).toMatchObject({ fields: ['page_token'] });
});
