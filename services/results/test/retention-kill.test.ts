import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { createClient } from '@connectrpc/connect';
import { uuidv7 } from '@mad/process';
import { RetentionService } from '@mad/proto/results';
import { grpcTransport, type GrpcTransport } from '@mad/rpc';
import { testServiceKeys } from '@mad/testing';
import pg from 'pg';
import { finished, idAt, midMonth, retentionOf, unsound } from './support/retention.ts';
import { bearer, docking, openWorld, rows, type Organization, type World } from './support/world.ts';

/** Results as a process of its own, killed in the middle of every kind of step. */

const MAIN = fileURLToPath(new URL('../src/main.ts', import.meta.url));
const NODE = 'killed';
/** More than a step takes. */
const JOBS = 60;
const PER_STEP = 50;

let world: World;
let child: ChildProcess | undefined;
let transport: GrpcTransport;
let holder: pg.Client;

beforeAll(async () => {
  world = await openWorld();
});

afterEach(async () => {
  await kill();
  transport?.close();
  await holder?.end();
});

afterAll(() => world.close());

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

async function start(port: number): Promise<void> {
  const keys = await testServiceKeys(['identity', 'catalog', 'results', 'provisioner', 'worker']);
  const env = {
    ...process.env,
    NODE_OPTIONS: '',
    LOG_LEVEL: 'fatal',
    RESULTS_PORT: String(port),
    RESULTS_CONNECT_PORT: '0',
    RESULTS_NODE: NODE,
    PROVISIONER_ADDRESS: world.neighbours,
    CATALOG_ADDRESS: world.neighbours,
    IDENTITY_ADDRESS: world.neighbours,
    RESULTS_SERVICE_KEY: JSON.stringify(keys.private.results),
    MAD_SERVICE_KEYS: JSON.stringify(keys.public),
    RESULTS_RETENTION_EVERY_HOURS: '0',
  };
  child = spawn(process.execPath, [MAIN], { env, stdio: ['ignore', 'ignore', 'inherit'] });
}

async function kill(): Promise<void> {
  const victim = child;
  child = undefined;
  victim?.kill('SIGKILL');
  if (victim?.exitCode === null && victim.signalCode === null) await once(victim, 'exit');
}

/** Waits until a question about the process's sessions is answered with yes. */
async function until(org: Organization, condition: string): Promise<void> {
  for (let wait = 0; wait < 1500; wait += 1) {
    const found = await rows<{ yes: boolean }>(
      org,
      `SELECT ${condition} AS yes FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '${NODE}%'`,
    );
    if (found[0]!.yes) return;
    await delay(20);
  }
  throw new Error(`never: ${condition}`);
}

const standing = async (org: Organization) =>
  (
    await rows<Record<string, number>>(
      org,
      `SELECT count(*) FILTER (WHERE results_dropped_at IS NOT NULL)::int AS dropped,
        count(*) FILTER (WHERE results_dropped_at IS NOT NULL AND EXISTS (SELECT FROM task_results t WHERE t.job_id = j.job_id
          AND t.smiles = 'CC'))::int AS half FROM jobs j`,
    )
  )[0]!;

test('killed while it drops results or sweeps partitions, it leaves whole jobs or none, and goes on where it was', async () => {
  const org = await world.organization();
  const retention = retentionOf(world, org);
  const month = midMonth(-6);
  const jobs: string[] = [];
  for (let place = 0; place < JOBS; place += 1) {
    // The second molecule of each job goes, the first stays as its best hit; none answers another job's.
    const plans = [docking({ parameters: { seed: place + 1, receptor: 'artifact' } })];
    const { jobId } = await finished(world, org, {
      jobId: idAt(month + place),
      smiles: ['CCC', 'CC'],
      plans,
      endedDaysAgo: 100,
    });
    jobs.push(jobId);
  }
  await retention.set([{ keepDays: 30, keepTopHits: 1 }]);
  const preview = await retention.preview();
  expect(preview).toMatchObject({ jobs: BigInt(JOBS), items: BigInt(JOBS), partitions: 2n });

  holder = new pg.Client(org.database.adminUrl);
  await holder.connect();
  await holder.query('SET search_path = results');
  const port = await freePort();
  transport = grpcTransport(`127.0.0.1:${port}`);
  const requestId = uuidv7();
  const apply = () =>
    createClient(RetentionService, transport).applyRetention({ orgId: org.orgId, requestId }, bearer(org.token));
  /** Starts it, has it run into what is held, and kills it there. */
  const killWhere = async (held: string, params: unknown[] = []) => {
    await holder.query('BEGIN');
    await holder.query(held, params);
    await start(port);
    const asking = (async () => {
      for (; child !== undefined;) {
        await apply().catch(() => undefined);
        await delay(20);
      }
    })();
    await until(org, `coalesce(bool_or(wait_event_type = 'Lock'), false)`);
    await kill();
    await asking;
    await holder.query('ROLLBACK');
    await until(org, 'count(*) = 0');
  };
  const eventOf = 'SELECT 1 FROM job_events WHERE job_id = $1 FOR UPDATE';

  await killWhere(eventOf, [jobs[10]]);
  expect(await standing(org)).toEqual({ dropped: 0, half: 0 });
  expect(await unsound(org)).toEqual([]);

  await killWhere(eventOf, [jobs[PER_STEP + 2]]);
  expect(await standing(org)).toEqual({ dropped: PER_STEP, half: 0 });
  expect((await retention.runs()).runs).toMatchObject([{ runId: requestId, deleted: { jobs: BigInt(PER_STEP) } }]);
  expect(await unsound(org)).toEqual([]);

  await killWhere('LOCK TABLE docking_results IN ACCESS SHARE MODE');
  expect(await standing(org)).toEqual({ dropped: JOBS, half: 0 });
  expect((await retention.runs()).runs).toMatchObject([{ deleted: { jobs: BigInt(JOBS), partitions: 0n } }]);
  expect(await unsound(org)).toEqual([]);

  const run = await retention.apply(requestId);
  expect(run.deleted).toEqual(preview);
  expect(run.endTime).toBeDefined();
  expect(await rows(org, 'SELECT count(*)::int AS n FROM docking_results')).toEqual([{ n: 2 * JOBS }]);
  expect(await rows(org, `SELECT count(*)::int AS n FROM audit_log WHERE action = 'retention.drop'`)).toEqual([
    { n: JOBS },
  ]);
  expect(await unsound(org)).toEqual([]);
}, 240_000);
