import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { CachePolicy, JobState } from '@mad/proto/catalog';
import { WorkStatus, type JobEvent, type WorkItem } from '@mad/proto/results';
import { badTokens, bearer, serviceToken, userToken } from '@mad/testing';
import { failureOf } from './support/errors.ts';
import { docking, openWorld, rows, similarity, type Organization, type World } from './support/world.ts';

let world: World;
let org: Organization;
let stranger: Organization;
/** A finished job: a screen of ten molecules, one of which failed, and docking of the others, two poses each. */
let jobId: string;
let options: ReturnType<typeof bearer>;

const SMILES = Array.from({ length: 10 }, (_one, index) => `C${'C'.repeat(index)}`);
const plans = [similarity({ chunkSize: 5 }), docking({ dependsOn: ['screen'], chunkSize: 5 })];
const poses = [
  { replicate: 1, poseRank: 1, score: -7, rawScore: -7.5, rmsdLb: 0, rmsdUb: 0 },
  { replicate: 1, poseRank: 2, score: -6, rawScore: -6.5, rmsdLb: 1, rmsdUb: 2 },
];

async function runAll(id: string): Promise<void> {
  const { runnable } = await world.asCatalog.reconcileJob({ orgId: org.orgId, jobId: id });
  const queue = [...runnable];
  for (const { taskExecutionId, engine } of queue) {
    await world.run(org, taskExecutionId, (smiles) => {
      if (smiles === 'CCC') return { errorClass: 'TIMEOUT', errorMessage: 'took too long' };
      // Ties, so that pages must not lose equal scores.
      const score = Math.floor(smiles.length / 2) / 10;
      return engine.startsWith('vina') ? { score: -score, poses } : { score, resultData: { length: smiles.length } };
    });
    queue.push(...world.around.settled.at(-1)!.runnable);
  }
}

beforeAll(async () => {
  world = await openWorld();
  org = await world.organization();
  stranger = await world.organization();
  options = bearer(org.token);
  ({ jobId } = await world.materialize(org, { smiles: SMILES, plans }));
  await runAll(jobId);
});

afterAll(() => world.close());

async function allOf<T>(messages: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const message of messages) all.push(message);
  return all;
}

/** Reads all pages of `size`. */
async function allPages<T>(read: (pageToken: string) => Promise<{ nextPageToken: string; page: T[] }>): Promise<T[][]> {
  const pages: T[][] = [];
  for (let token = ''; ;) {
    const { nextPageToken, page } = await read(token);
    pages.push(page);
    if (nextPageToken === '') return pages;
    token = nextPageToken;
  }
}

const hits = (taskId: string, pageSize: number) =>
  allPages(async (pageToken) => {
    const answer = await world.jobRuns.listHits({ orgId: org.orgId, jobId, taskId, pageSize, pageToken }, options);
    return { nextPageToken: answer.nextPageToken, page: answer.hits };
  });

test('catalog is told of a job run what its members are told, and nobody else without their organization', async () => {
  const { jobRun } = await world.jobRuns.getJobRun({ orgId: org.orgId, jobId }, options);
  const asCatalog = bearer(await serviceToken('catalog'));
  const described = await world.jobRuns.describeJobRun({ orgId: org.orgId, jobId }, asCatalog);
  expect(described.jobRun).toEqual(jobRun);
  const ask = (request: { orgId: string; jobId: string }, by: ReturnType<typeof bearer>) =>
    failureOf(world.jobRuns.describeJobRun(request, by));
  expect(await ask({ orgId: stranger.orgId, jobId }, asCatalog)).toMatchObject({ code: 'not_found' });
  expect(await ask({ orgId: uuidv7(), jobId }, asCatalog)).toMatchObject({ reason: 'TENANT_NOT_PROVISIONED' });
  expect(await ask({ orgId: org.orgId, jobId }, options)).toMatchObject({ code: 'unauthenticated' });
  const worker = bearer(await serviceToken('worker'));
  expect(await ask({ orgId: org.orgId, jobId }, worker)).toMatchObject({ code: 'permission_denied' });
});

test('a job run says how the job and each of its tasks stand', async () => {
  const { jobRun } = await world.jobRuns.getJobRun({ orgId: org.orgId, jobId }, options);
  expect(jobRun).toMatchObject({
    jobId,
    state: JobState.COMPLETED,
    cachePolicy: CachePolicy.USE,
    counters: { requested: 20n, scored: 18n, failed: 1n, skipped: 1n, pending: 0n },
    parameters: { reference: 'CCO' },
    error: '',
  });
  expect(jobRun?.inputSignature).toMatch(/^[0-9a-f]{64}$/);
  expect(jobRun?.tasks).toMatchObject([
    {
      taskId: 'screen',
      task: 'rdkit.similarity',
      scoreUnits: 'tanimoto',
      lowerIsBetter: false,
      counters: { failed: 1n },
    },
    { taskId: 'dock', engine: 'vina@1.2.3', scoreUnits: 'kcal/mol', lowerIsBetter: true, counters: { skipped: 1n } },
  ]);
  expect(jobRun?.startTime).toBeDefined();
  expect(jobRun?.endTime).toBeDefined();
});

test.each(['screen', 'dock', ''])('hits of %j come best first, in pages without loss', async (taskId) => {
  const [whole] = (await hits(taskId, 100)) as [WorkItem[]];
  expect(whole).toHaveLength(9);
  const scores = whole.map(({ score }) => score!);
  // The last task that gives scores is the default; lower is better there.
  expect(scores).toEqual(scores.toSorted((a, b) => (taskId === 'screen' ? b - a : a - b)));
  expect(whole.map(({ rank }) => rank)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
  for (const size of [1, 2, 4, 9]) {
    const pages = await hits(taskId, size);
    expect(pages.flat()).toEqual(whole);
    expect(pages).toHaveLength(Math.ceil(9 / size));
  }
});

test('work items come in input order, task by task, by status, in pages without loss', async () => {
  const list = (taskId: string, status: WorkStatus, pageSize: number) =>
    allPages(async (pageToken) => {
      const request = { orgId: org.orgId, jobId, taskId, status, pageSize, pageToken };
      const answer = await world.jobRuns.listWorkItems(request, options);
      return { nextPageToken: answer.nextPageToken, page: answer.items };
    });
  const [whole] = (await list('', WorkStatus.UNSPECIFIED, 100)) as [WorkItem[]];
  expect(whole.map(({ taskId, itemNo }) => [taskId, itemNo])).toEqual(
    ['screen', 'dock'].flatMap((taskId) => SMILES.map((_smiles, index) => [taskId, index + 1])),
  );
  expect(whole[0]).toMatchObject({
    smiles: 'C',
    status: WorkStatus.SCORED,
    scoreUnits: 'tanimoto',
    confidenceScore: 1,
    resultData: { length: 1 },
  });
  for (const size of [1, 3, 10, 19, 20]) expect((await list('', WorkStatus.UNSPECIFIED, size)).flat()).toEqual(whole);
  expect((await list('dock', WorkStatus.UNSPECIFIED, 4)).flat()).toEqual(whole.slice(10));
  expect(await list('', WorkStatus.FAILED, 10)).toMatchObject([
    [{ itemNo: 3, errorClass: 'TIMEOUT', errorMessage: 'took too long' }],
  ]);
  expect(await list('dock', WorkStatus.SKIPPED, 10)).toMatchObject([[{ itemNo: 3, scoreUnits: '' }]]);
});

test('poses come best first; an item answered from the cache shows those of its source', async () => {
  const read = async (id: string) => {
    const pages = await allPages(async (pageToken) => {
      const answer = await world.jobRuns.listPoses(
        { orgId: org.orgId, jobId: id, itemNo: 1, pageSize: 1, pageToken },
        options,
      );
      return { nextPageToken: answer.nextPageToken, page: answer.poses };
    });
    return pages.flat();
  };
  const expected = [
    { poseRank: 1, score: -7, rawScore: -7.5 },
    { poseRank: 2, score: -6, rmsdUb: 2 },
  ];
  expect(await read(jobId)).toMatchObject(expected);
  const again = await world.materialize(org, { smiles: SMILES, plans });
  expect(again.progress?.counters).toMatchObject({ cached: 18n });
  expect(await read(again.jobId)).toMatchObject(expected);
  const nothing = world.jobRuns.listPoses({ orgId: org.orgId, jobId, itemNo: 99 }, options);
  expect(await failureOf(nothing)).toEqual({ code: 'not_found', reason: 'RESOURCE_NOT_FOUND' });
});

test('nothing of an execution shows before it has finished', async () => {
  const made = await world.materialize(org, { smiles: ['N', 'NN'], plans: [docking()] });
  const id = made.runnable[0]!.taskExecutionId;
  await world.start(org, id);
  await world.append(org, id, [
    { itemNo: 1, score: -9, poses, resultData: { a: 1 } },
    { itemNo: 2, errorClass: 'X', errorMessage: 'x' },
  ]);
  const query = { orgId: org.orgId, jobId: made.jobId };
  expect((await world.jobRuns.listHits(query, options)).hits).toEqual([]);
  expect((await world.jobRuns.listPoses({ ...query, itemNo: 1 }, options)).poses).toEqual([]);
  const { items } = await world.jobRuns.listWorkItems(query, options);
  expect(items.map(({ status, score, resultData, errorClass }) => ({ status, score, resultData, errorClass }))).toEqual(
    [1, 2].map(() => ({ status: WorkStatus.PENDING, score: undefined, resultData: undefined, errorClass: '' })),
  );
  expect((await world.jobRuns.getJobRun(query, options)).jobRun).toMatchObject({
    state: JobState.RUNNING,
    counters: { pending: 2n },
  });
  await world.finish(org, id);
  expect((await world.jobRuns.listHits(query, options)).hits).toMatchObject([{ itemNo: 1, score: -9, rank: 1 }]);
  expect((await world.jobRuns.listPoses({ ...query, itemNo: 1 }, options)).poses).toHaveLength(2);
});

test('events come in order, without gaps, in pages and after a number', async () => {
  const read = async (afterSeq: bigint, pageSize: number) => {
    const pages = await allPages(async (pageToken) => {
      const answer = await world.jobRuns.listJobEvents(
        { orgId: org.orgId, jobId, afterSeq, pageSize, pageToken },
        options,
      );
      return { nextPageToken: answer.nextPageToken, page: answer.events };
    });
    return pages.flat();
  };
  const whole = await read(0n, 100);
  expect(whole.map(({ seqNo }) => seqNo)).toEqual(whole.map((_event, index) => BigInt(index + 1)));
  expect(whole.map(({ event }) => event)).toEqual(
    expect.arrayContaining(['job.materialized', 'task.unblocked', 'job.completed']),
  );
  expect(await read(0n, 2)).toEqual(whole);
  expect(await read(3n, 1)).toEqual(whole.slice(3));
});

test('what was made up, misspelt or of another query is refused, naming the field', async () => {
  const query = { orgId: org.orgId, jobId };
  const { nextPageToken } = await world.jobRuns.listHits({ ...query, pageSize: 1 }, options);
  const token = { code: 'invalid_argument', fields: ['page_token'] };
  const forged = (cursor: unknown) =>
    Buffer.from(JSON.stringify([JSON.parse(Buffer.from(nextPageToken, 'base64url').toString())[0], cursor])).toString(
      'base64url',
    );
  expect(await failureOf(world.jobRuns.listWorkItems({ ...query, pageToken: nextPageToken }, options))).toEqual(token);
  expect(
    await failureOf(world.jobRuns.listHits({ ...query, taskId: 'screen', pageToken: nextPageToken }, options)),
  ).toEqual(token);
  for (const pageToken of [
    'x',
    '%',
    forged('1; DROP TABLE jobs'),
    forged([1, 2]),
    forged([1, 1.5, 1]),
    forged([1, 2 ** 40, 1]),
  ]) {
    expect(await failureOf(world.jobRuns.listHits({ ...query, pageToken }, options))).toEqual(token);
  }
  for (const taskId of [`'; DROP TABLE jobs; --`, 'nothing']) {
    const task = { code: 'invalid_argument', fields: ['task_id'] };
    expect(await failureOf(world.jobRuns.listHits({ ...query, taskId }, options))).toEqual(task);
    expect(await failureOf(world.jobRuns.listWorkItems({ ...query, taskId }, options))).toEqual(task);
    expect(await failureOf(world.jobRuns.listPoses({ ...query, itemNo: 1, taskId }, options))).toEqual(task);
  }
  expect(await failureOf(world.jobRuns.getJobRun({ ...query, jobId: `'` }, options))).toEqual({
    code: 'invalid_argument',
    fields: ['job_id'],
  });
  expect(await failureOf(world.jobRuns.listHits({ ...query, pageSize: 1001 }, options))).toEqual({
    code: 'invalid_argument',
    fields: ['page_size'],
  });
});

/** Every method, for what holds of all. */
const methods = (orgId: string, id: string, call: ReturnType<typeof bearer>): [string, () => Promise<unknown>][] => {
  const query = { orgId, jobId: id };
  return [
    ['getJobRun', () => world.jobRuns.getJobRun(query, call)],
    ['listHits', () => world.jobRuns.listHits(query, call)],
    ['listWorkItems', () => world.jobRuns.listWorkItems(query, call)],
    ['listPoses', () => world.jobRuns.listPoses({ ...query, itemNo: 1 }, call)],
    ['listJobEvents', () => world.jobRuns.listJobEvents(query, call)],
    ['watchJob', () => allOf(world.jobRuns.watchJob(query, call))],
  ];
};

test('no way leads into another organization', async () => {
  for (const [, call] of methods(org.orgId, jobId, options)) expect(await failureOf(call())).toBeUndefined();
  // Its own token and the job's id; the other's organization with its own token; a token that says otherwise.
  for (const [, call] of methods(stranger.orgId, jobId, bearer(stranger.token))) {
    expect(await failureOf(call())).toEqual({ code: 'not_found', reason: 'RESOURCE_NOT_FOUND' });
  }
  for (const [, call] of methods(org.orgId, jobId, bearer(stranger.token))) {
    expect(await failureOf(call())).toEqual({ code: 'not_found', reason: 'ORGANIZATION_NOT_FOUND' });
  }
});

test('a job nobody made is not found; a tenant nobody made is told so', async () => {
  for (const [, call] of methods(org.orgId, uuidv7(), options)) {
    expect(await failureOf(call())).toEqual({ code: 'not_found', reason: 'RESOURCE_NOT_FOUND' });
  }
  const orgId = uuidv7();
  const homeless = bearer(await userToken({ orgId, permissions: ['jobs.read'] }));
  for (const [, call] of methods(orgId, jobId, homeless)) {
    expect(await failureOf(call())).toEqual({ code: 'failed_precondition', reason: 'TENANT_NOT_PROVISIONED' });
  }
});

test('tokens that prove nothing, prove another thing, or lack the permission are refused', async () => {
  const bad = await badTokens({ orgId: org.orgId, permissions: ['jobs.read'] });
  const tokens = [...Object.values(bad), await serviceToken('catalog')];
  for (const token of tokens) {
    for (const [, call] of methods(org.orgId, jobId, bearer(token)))
      expect((await failureOf(call()))?.code).toBe('unauthenticated');
  }
  const powerless = bearer(await userToken({ orgId: org.orgId, permissions: ['jobs.create'] }));
  for (const [, call] of methods(org.orgId, jobId, powerless)) {
    expect(await failureOf(call())).toEqual({ code: 'permission_denied', reason: 'PERMISSION_MISSING' });
  }
});

test('watching a job shows every event once while it runs, goes on after a cut, and ends with the job', async () => {
  const made = await world.materialize(org, { smiles: ['O', 'OO', 'OOO'], plans: [similarity({ chunkSize: 1 })] });
  const query = { orgId: org.orgId, jobId: made.jobId };
  const events: JobEvent[] = [];
  let states: JobState[] = [];
  const cut = new AbortController();
  const follow = async (afterSeq: bigint, signal?: AbortSignal) => {
    for await (const message of world.jobRuns.watchJob({ ...query, afterSeq }, { ...options, signal })) {
      events.push(...message.events);
      states.push(message.state);
      if (signal && events.length >= 3) cut.abort();
    }
  };
  const first = follow(0n, cut.signal);
  const [one, two, three] = made.runnable.map(({ taskExecutionId }) => taskExecutionId) as [string, string, string];
  await world.run(org, one, () => ({ score: 1 }));
  expect((await failureOf(first))?.code).toBe('canceled');

  const rest = follow(events.at(-1)!.seqNo);
  await world.run(org, two, () => ({ score: 1 }));
  await world.run(org, three, () => ({ score: 1 }));
  await rest;
  expect(events.map(({ seqNo }) => seqNo)).toEqual(events.map((_event, index) => BigInt(index + 1)));
  expect(events.at(-1)?.event).toBe('job.completed');
  expect(states.at(-1)).toBe(JobState.COMPLETED);

  // All of it afterwards, and nothing more after its end.
  const before = [...events];
  events.length = 0;
  await follow(0n);
  expect(events).toEqual(before);
  events.length = 0;
  states = [];
  await follow(100n);
  expect([events, states]).toEqual([[], [JobState.COMPLETED]]);
});

test('a watch with a deadline ends at it', async () => {
  const made = await world.materialize(org, { smiles: ['S'] });
  const watch = allOf(world.jobRuns.watchJob({ orgId: org.orgId, jobId: made.jobId }, { ...options, timeoutMs: 200 }));
  expect((await failureOf(watch))?.code).toBe('deadline_exceeded');
});

test('a job of more events than fit in one message is watched whole', async () => {
  const made = await world.materialize(org, { smiles: ['P'] });
  await rows(
    org,
    `INSERT INTO job_events (job_id, seq_no, event) SELECT $1, n, 'noise' FROM generate_series(2, 1200) AS n`,
    [made.jobId],
  );
  await rows(org, 'UPDATE jobs SET event_seq = 1200 WHERE job_id = $1', [made.jobId]);
  await world.asCatalog.cancelJobRun({ orgId: org.orgId, jobId: made.jobId });
  const messages = await allOf(world.jobRuns.watchJob({ orgId: org.orgId, jobId: made.jobId }, options));
  const seen = messages.flatMap(({ events }) => events.map(({ seqNo }) => Number(seqNo)));
  expect(messages).toHaveLength(3);
  expect(seen).toEqual(Array.from({ length: 1201 }, (_one, index) => index + 1));
});
