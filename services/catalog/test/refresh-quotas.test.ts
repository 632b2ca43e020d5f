import { Code, ConnectError } from '@connectrpc/connect';
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { OrganizationStatus } from '@mad/proto/identity';
import { rpcError } from '@mad/rpc';
import { claimTasks } from '../src/jobs/claim.ts';
import { refreshQuotas, type QuotaContext } from '../src/jobs/refresh-quotas.ts';
import { TaskSignal } from '../src/jobs/task-signal.ts';
import { ANYTHING, startQueueWorld, type QueueWorld } from './queue-world.ts';

let world: QueueWorld;
let context: QuotaContext;
/** What identity says. */
let answer: { maxRunningTasks: number; maxConcurrentJobs: number } | ConnectError;

beforeAll(async () => {
  world = await startQueueWorld();
});
beforeEach(async () => {
  await world.clear();
  const require: QuotaContext['organizations']['require'] = async () => {
    if (answer instanceof ConnectError) throw answer;
    const quotas = { maxQueuedTasks: 1, maxMolecules: 1, maxStorageBytes: 1, ...answer };
    return { status: OrganizationStatus.ACTIVE, slug: 'acme', region: 'local', quotas };
  };
  context = { database: world.database, boss: world.boss, tasks: new TaskSignal(), organizations: { require } };
});
afterAll(() => world.close());

const claim = () => world.database.asSystem((tx) => claimTasks(tx, { ...ANYTHING, maxTasks: 10 }, 60_000));

test('a quota that grew is used at once, and workers that wait are woken', async () => {
  await world.fill(await world.organization({ maxRunning: 1 }), 5);
  expect(await claim()).toHaveLength(1);
  answer = { maxRunningTasks: 3, maxConcurrentJobs: 10 };
  expect(await refreshQuotas(context)).toBe(1);
  expect(context.tasks.count).toBe(1);
  expect(await claim()).toHaveLength(2);
  expect(await refreshQuotas(context)).toBe(0);
});

test('a suspended organization is given nothing, and goes on when it is resumed', async () => {
  await world.fill(await world.organization(), 5);
  answer = rpcError(Code.FailedPrecondition, 'TENANT_SUSPENDED', 'suspended');
  await refreshQuotas(context);
  expect(await claim()).toEqual([]);
  answer = { maxRunningTasks: 64, maxConcurrentJobs: 10 };
  await refreshQuotas(context);
  expect(await claim()).toHaveLength(5);
});

test('while identity is away everything stays as it was', async () => {
  await world.fill(await world.organization({ maxRunning: 2 }), 5);
  answer = rpcError(Code.Unavailable, 'SERVICE_UNAVAILABLE', 'away');
  expect(await refreshQuotas(context)).toBe(0);
  expect(await claim()).toHaveLength(2);
});

test('a job that waits for a place gets it when there are more places', async () => {
  const { jobId } = await world.organization();
  await world.admin.query('UPDATE catalog.org_queue SET max_concurrent_jobs = 0');
  await world.admin.query(`UPDATE catalog.jobs_meta SET status = 'pending', admitted_at = NULL, detail = 'waiting'`);
  answer = { maxRunningTasks: 1_000_000, maxConcurrentJobs: 0 };
  await refreshQuotas(context);
  const admitted = async () =>
    (await world.admin.query('SELECT admitted_at, detail FROM catalog.jobs_meta WHERE job_id = $1', [jobId])).rows[0];
  expect(await admitted()).toEqual({ admitted_at: null, detail: 'waiting' });
  answer = { maxRunningTasks: 1_000_000, maxConcurrentJobs: 1 };
  await refreshQuotas(context);
  expect(await admitted()).toEqual({ admitted_at: expect.any(Date), detail: '' });
  expect((await world.boss.depth('materialize')).waiting).toBe(1);
});
