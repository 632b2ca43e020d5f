import { createClient } from '@connectrpc/connect';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { createMetrics, MINUTE_MS, SECOND_MS, sleep, type Metrics } from '@mad/process';
import { JobState } from '@mad/proto/catalog';
import { JobRunService, type WatchJobResponse } from '@mad/proto/results';
import { grpcTransport } from '@mad/rpc';
import { callsSoFar } from './support/calls.ts';
import { onServer } from './support/tenant-database.ts';
import { bearer, openWorld, rows, similarity, type Organization, type World } from './support/world.ts';

/** All who watch one job share its readings, and none is sent away because there are many. */

const IN_FLIGHT = 4;

let world: World;
let org: Organization;
let metrics: Metrics;
let stop: AbortController;

beforeAll(async () => {
  metrics = createMetrics('results');
  world = await openWorld({ tenantInFlight: IN_FLIGHT, metrics });
});

afterAll(() => world.close());

beforeEach(async () => {
  org = await world.organization();
  stop = new AbortController();
});

afterEach(() => stop.abort());

async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 30 * SECOND_MS; !(await condition()); await sleep(20)) {
    if (Date.now() > end) throw new Error(`did not happen: ${what}`);
  }
}

const watch = (jobId: string, afterSeq = 0n) =>
  world.jobRuns.watchJob({ orgId: org.orgId, jobId, afterSeq }, { ...bearer(org.token), signal: stop.signal });

/** The numbers a watcher saw, and the state it was told last. */
interface Seen {
  numbers: number[];
  state: JobState;
}

/** Watches a job to its end. */
function follow(jobId: string, afterSeq = 0n): { seen: Seen; end: Promise<Seen> } {
  const seen: Seen = { numbers: [], state: JobState.UNSPECIFIED };
  const end = (async () => {
    for await (const { events, state } of watch(jobId, afterSeq)) {
      seen.numbers.push(...events.map(({ seqNo }) => Number(seqNo)));
      seen.state = state;
    }
    return seen;
  })();
  // Looked at when it is awaited.
  end.catch(() => undefined);
  return { seen, end };
}

const calls = () => callsSoFar(metrics);

const upTo = (count: number): number[] => Array.from({ length: count }, (_one, index) => index + 1);

async function addEvents(jobId: string, to: number, detail: string): Promise<void> {
  await rows(
    org,
    `INSERT INTO job_events (job_id, seq_no, event, detail)
      SELECT $1, n, 'noise', $3 FROM generate_series((SELECT event_seq + 1 FROM jobs WHERE job_id = $1), $2::int) AS n`,
    [jobId, to, detail],
  );
  await rows(org, 'UPDATE jobs SET event_seq = $2 WHERE job_id = $1', [jobId, to]);
}

test(
  'three hundred watchers of one job see every event, in order, once, by fewer readings than they are',
  async () => {
    const made = await world.materialize(org, {
      smiles: ['C', 'CC', 'CCC', 'CCCC'],
      plans: [similarity({ chunkSize: 1 })],
    });
    const watchers = Array.from({ length: 300 }, () => follow(made.jobId));
    await until('all have begun', () => watchers.every(({ seen }) => seen.numbers.length > 0));
    for (const { taskExecutionId } of made.runnable) await world.run(org, taskExecutionId, () => ({ score: 0.5 }));
    const all = await Promise.all(watchers.map(({ end }) => end));
    const [{ event_seq: events } = { event_seq: 0 }] = await rows<{ event_seq: number }>(
      org,
      'SELECT event_seq::int FROM jobs WHERE job_id = $1',
      [made.jobId],
    );
    for (const seen of all) expect(seen).toEqual({ numbers: upTo(events), state: JobState.COMPLETED });
    // The world's own calls are among them: four for each execution.
    expect(await calls()).toBeLessThan(100);
  },
  MINUTE_MS,
);

test(
  'watchers that come to a long job together share their readings as well, wherever they go on',
  async () => {
    const made = await world.materialize(org, { smiles: ['C'] });
    await addEvents(made.jobId, 1_500, '');
    await world.asCatalog.cancelJobRun({ orgId: org.orgId, jobId: made.jobId });
    const before = await calls();
    const from = [0, 100, 1_400];
    const all = await Promise.all(
      Array.from({ length: 60 }, (_one, index) => follow(made.jobId, BigInt(from[index % 3]!)).end),
    );
    for (const [index, { numbers }] of all.entries()) {
      expect(numbers).toEqual(upTo(1_501).slice(from[index % 3]));
    }
    expect((await calls()) - before).toBeLessThan(30);
  },
  MINUTE_MS,
);

test(
  'a watcher that takes nothing holds up no other, and goes on where it was',
  async () => {
    const made = await world.materialize(org, { smiles: ['C'] });
    // What it has not taken fits neither into what its transport reads ahead nor into the window of the connection.
    const transport = grpcTransport(world.address(), { readAhead: 1 });
    const call = { ...bearer(org.token), signal: stop.signal };
    const messages = createClient(JobRunService, transport).watchJob({ orgId: org.orgId, jobId: made.jobId }, call);
    const slow = messages[Symbol.asyncIterator]();
    const first = ((await slow.next()).value as WatchJobResponse).events.map(({ seqNo }) => Number(seqNo));
    const quick = [follow(made.jobId), follow(made.jobId)];
    const count = 6_000;
    for (const to of [2_000, 4_000, count]) {
      await addEvents(made.jobId, to, 'x'.repeat(2_000));
      await until('the others have seen it', () => quick.every(({ seen }) => seen.numbers.at(-1) === to));
    }
    await world.asCatalog.cancelJobRun({ orgId: org.orgId, jobId: made.jobId });
    for (const { end } of quick) expect((await end).numbers).toEqual(upTo(count + 1));
    const numbers = [...first];
    for (let next = await slow.next(); !next.done; next = await slow.next()) {
      numbers.push(...next.value.events.map(({ seqNo }) => Number(seqNo)));
    }
    expect(numbers).toEqual(upTo(count + 1));
    transport.close();
  },
  MINUTE_MS,
);

test('while an organization has as many calls as it may, its watchers wait, and miss nothing', async () => {
  const made = await world.materialize(org, { smiles: ['C'] });
  const other = await world.materialize(org, { smiles: ['CC'] });
  const early = follow(made.jobId);
  await until('it watches', () => early.seen.numbers.length > 0);
  await onServer(org.database.adminUrl, async (client) => {
    await client.query('BEGIN');
    await client.query('LOCK TABLE results.task_results');
    const query = { orgId: org.orgId, jobId: made.jobId };
    const blocked = Array.from({ length: IN_FLIGHT }, () => world.jobRuns.listWorkItems(query, bearer(org.token)));
    await until('the house is full', async () => {
      const text = await metrics.text();
      return Number(/^tenant_calls_in_flight\{.*\} (\d+)$/m.exec(text)![1]) === IN_FLIGHT;
    });
    await expect(world.jobRuns.getJobRun(query, bearer(org.token))).rejects.toThrow('requests in flight already');
    const late = follow(other.jobId);
    // Longer than the time between two looks.
    await sleep(1_500);
    expect(late.seen.numbers).toEqual([]);
    await client.query('COMMIT');
    await Promise.all(blocked);
    for (const { runnable } of [made, other]) {
      await world.run(org, runnable[0]!.taskExecutionId, () => ({ score: 0.5 }));
    }
    const seen = await Promise.all([early.end, late.end]);
    for (const { numbers, state } of seen) {
      expect(numbers).toEqual(upTo(numbers.length));
      expect(state).toBe(JobState.COMPLETED);
    }
  });
});

test('a watch ends with what is wrong when it is more than a full house, and whoever comes next begins anew', async () => {
  const made = await world.materialize(org, { smiles: ['C'] });
  const early = [follow(made.jobId), follow(made.jobId)];
  await until('both watch', () => early.every(({ seen }) => seen.numbers.length > 0));
  await rows(org, 'ALTER TABLE jobs RENAME TO jobs_away');
  for (const { end } of early) await expect(end).rejects.toThrow('internal error');
  await rows(org, 'ALTER TABLE jobs_away RENAME TO jobs');
  const late = follow(made.jobId);
  await until('it watches', () => late.seen.numbers.length > 0);
});
