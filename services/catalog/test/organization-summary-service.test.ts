import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Code, type Client } from '@connectrpc/connect';
import { uuidv7 } from '@mad/process';
import { OrganizationSummaryService, UsageGrouping, type Usage } from '@mad/proto/catalog';
import { OrganizationStatus } from '@mad/proto/identity';
import { TenantState } from '@mad/proto/provisioner';
import { reasonOf, violationsOf } from '@mad/rpc';
import { platformToken, userToken } from '@mad/testing';
import { errorOf } from './errors.ts';
import { startJobWorld, type JobWorld, type Lab } from './job-world.ts';
import { organization } from './neighbours.ts';
import { fault } from './results-neighbour.ts';

let world: JobWorld;
let lab: Lab;
let summaries: Client<typeof OrganizationSummaryService>;
let platform: Client<typeof OrganizationSummaryService>;

beforeAll(async () => {
  world = await startJobWorld();
  lab = await world.lab({ maxConcurrentJobs: 2 });
  summaries = await world.catalog.member(OrganizationSummaryService, organization({ orgId: lab.orgId }));
  platform = world.catalog.as(
    OrganizationSummaryService,
    await platformToken({ permissions: ['platform.organizations.read'] }),
  );
  const ended = await lab.submit();
  const [task] = await world.lease(ended.jobId);
  await world.settle(task!);
  await lab.submit();
  const cancelled = await lab.submit();
  await lab.jobs.cancelJob({ orgId: lab.orgId, requestId: uuidv7(), jobId: cancelled.jobId });
  await lab.submit();
  await lab.submit();
});
afterAll(() => world.close());

const quotasOf = (summary: { quotas: { quota: string; limit: bigint; used: bigint }[] }) =>
  Object.fromEntries(summary.quotas.map(({ quota, limit, used }) => [quota, [Number(limit), Number(used)]]));

test('a summary tells jobs by state, every quota with its use, members, tokens and databases', async () => {
  const { summary } = await summaries.getOrganizationSummary({ orgId: lab.orgId });
  expect(summary).toMatchObject({
    orgId: lab.orgId,
    status: OrganizationStatus.ACTIVE,
    jobs: { total: 5n, pending: 1n, queued: 2n, running: 0n, completed: 1n, failed: 0n, cancelled: 1n },
    molecules: 3n,
    storageBytes: 0n,
    members: 3n,
    tokens: 1n,
    tenants: [{ schema: 'results', state: TenantState.READY, sizeBytes: 8_000_000n }],
    tenantsUnavailable: '',
    stored: [{ purpose: 'poses', objects: 3n, sizeBytes: 4_500n }],
    storedUnavailable: '',
  });
  const quotas = world.catalog.identity.organizations.get(lab.orgId)!.quotas!;
  expect(quotasOf(summary!)).toEqual({
    max_concurrent_jobs: [2, 2],
    // Two tasks stand in the queue, and one is planned by the job that waits.
    max_queued_tasks: [quotas.maxQueuedTasks, 3],
    max_running_tasks: [quotas.maxRunningTasks, 0],
    max_molecules: [Number(quotas.maxMolecules), 3],
    max_storage_bytes: [Number(quotas.maxStorageBytes), 0],
    max_members: [quotas.maxMembers, 3],
    max_tokens: [quotas.maxTokens, 1],
  });
});

test('an organization that never did anything has a summary of zeros', async () => {
  const fresh = organization({ slug: 'fresh' });
  world.catalog.identity.organizations.set(fresh.orgId, fresh);
  const client = await world.catalog.member(OrganizationSummaryService, fresh);
  const { summary } = await client.getOrganizationSummary({ orgId: fresh.orgId });
  expect(summary).toMatchObject({ slug: 'fresh', jobs: { total: 0n, completed: 0n }, molecules: 0n });
  expect(Object.values(quotasOf(summary!)).map(([, used]) => used)).toEqual([0, 0, 0, 0, 0, 3, 1]);
});

test('the provisioner’s silence leaves out the databases, and says so', async () => {
  world.results.faults.set('tenants', { error: fault(Code.Unavailable), times: 1 });
  const { summary } = await summaries.getOrganizationSummary({ orgId: lab.orgId });
  expect(summary).toMatchObject({ tenants: [], tenantsUnavailable: 'the provisioner does not answer', molecules: 3n });
});

test('results’ silence leaves out what is stored, and says so; without a database nothing is', async () => {
  world.results.faults.set('storage', { error: fault(Code.Unavailable), times: 1 });
  const silent = await summaries.getOrganizationSummary({ orgId: lab.orgId });
  expect(silent.summary).toMatchObject({ stored: [], storedUnavailable: 'its results do not answer', molecules: 3n });
  world.results.faults.set('storage', { error: fault(Code.FailedPrecondition, 'TENANT_NOT_PROVISIONED'), times: 1 });
  const { summary } = await summaries.getOrganizationSummary({ orgId: lab.orgId });
  expect(summary).toMatchObject({ stored: [], storedUnavailable: '' });
});

test('another organization’s summary is not found, and one without the permission is refused', async () => {
  const other = await errorOf(summaries.getOrganizationSummary({ orgId: world.catalog.globex.orgId }));
  expect([other.code, reasonOf(other)]).toEqual([Code.NotFound, 'ORGANIZATION_NOT_FOUND']);
  const token = await userToken({ orgId: lab.orgId, permissions: ['jobs.read'] });
  const weak = world.catalog.as(OrganizationSummaryService, token);
  expect((await errorOf(weak.getOrganizationSummary({ orgId: lab.orgId }))).code).toBe(Code.PermissionDenied);
  expect((await errorOf(summaries.listOrganizationSummaries({}))).code).toBe(Code.PermissionDenied);
});

test('the platform lists every organization with its own counts, page by page', async () => {
  const seen = [];
  let pageToken = '';
  do {
    const page = await platform.listOrganizationSummaries({ pageSize: 2, pageToken });
    expect(page.summaries.length).toBeLessThanOrEqual(2);
    seen.push(...page.summaries);
    pageToken = page.nextPageToken;
  } while (pageToken !== '');
  expect(seen.map(({ orgId }) => orgId)).toEqual([...world.catalog.identity.organizations.keys()]);
  expect(seen.find(({ orgId }) => orgId === lab.orgId)).toMatchObject({
    jobs: { total: 5n },
    molecules: 3n,
    tenants: [],
  });
  expect(seen.find(({ slug }) => slug === 'globex')).toMatchObject({ jobs: { total: 0n }, molecules: 0n });
  const forged = await errorOf(platform.listOrganizationSummaries({ pageToken: 'x' }));
  expect([forged.code, violationsOf(forged)[0]!.field]).toEqual([Code.InvalidArgument, 'page_token']);
});

/** What a test looks at. */
const figures = ({ month, userId, jobs, molecules, itemsComputed, itemsCached, coreMs, savedCoreMs }: Usage) => [
  month,
  userId,
  ...[jobs, molecules, itemsComputed, itemsCached, coreMs, savedCoreMs].map(Number),
];

describe('what jobs used', () => {
  /** Months by name, users by number. */
  const users = [uuidv7(), uuidv7()].sort();
  let other: Lab;
  let member: Client<typeof OrganizationSummaryService>;

  const usage = async (
    grouping: UsageGrouping,
    more: { pageSize?: number; firstMonth?: string; lastMonth?: string } = {},
  ): Promise<Usage[]> => {
    const all: Usage[] = [];
    for (let pageToken = ''; ;) {
      const page = await member.listUsage({ orgId: other.orgId, grouping, pageToken, ...more });
      all.push(...page.usage);
      if (page.nextPageToken === '') return all;
      pageToken = page.nextPageToken;
    }
  };

  beforeAll(async () => {
    other = await world.lab();
    member = await world.catalog.member(OrganizationSummaryService, organization({ orgId: other.orgId }));
    const made: [string, string, boolean][] = [
      // The last moment of October is not of November, whatever the server's own zone.
      ['2026-10-31T23:59:59.999Z', users[0]!, true],
      ['2026-11-01T00:00:00.000Z', users[0]!, true],
      ['2026-11-20T12:00:00.000Z', users[1]!, true],
      ['2026-11-21T12:00:00.000Z', users[1]!, false],
    ];
    for (const [at, user, runs] of made) {
      const { jobId } = await other.submit();
      for (const task of runs ? await world.lease(jobId) : []) await world.settle(task);
      const change =
        'UPDATE catalog.jobs_meta SET created_at = $2, created_by = $3, cached = $4, saved_core_ms = $5, requested = requested + $4 WHERE job_id = $1';
      await world.catalog.admin.query(change, [jobId, at, user, runs ? 1 : 0, runs ? 700 : 0]);
    }
  });

  test('is told by month, by user, and by both, the newest month first', async () => {
    const [october, november] = ['2026-10', '2026-11'];
    const byMonth = [
      [november, '', 3, 9, 6, 2, 9000, 1400],
      [october, '', 1, 3, 3, 1, 4500, 700],
    ];
    expect((await usage(UsageGrouping.MONTH)).map(figures)).toEqual(byMonth);
    expect((await usage(UsageGrouping.UNSPECIFIED, { pageSize: 1 })).map(figures)).toEqual(byMonth);
    expect((await usage(UsageGrouping.USER, { pageSize: 1 })).map(figures)).toEqual([
      ['', users[0], 2, 6, 6, 2, 9000, 1400],
      ['', users[1], 2, 6, 3, 1, 4500, 700],
    ]);
    const both = [
      [november, users[0], 1, 3, 3, 1, 4500, 700],
      [november, users[1], 2, 6, 3, 1, 4500, 700],
      [october, users[0], 1, 3, 3, 1, 4500, 700],
    ];
    expect((await usage(UsageGrouping.MONTH_AND_USER)).map(figures)).toEqual(both);
    expect((await usage(UsageGrouping.MONTH_AND_USER, { pageSize: 1 })).map(figures)).toEqual(both);
    expect((await usage(UsageGrouping.MONTH_AND_USER, { pageSize: 2 })).map(figures)).toEqual(both);
  });

  test('is bounded by months, and a bound that makes no sense is named', async () => {
    const months = async (more: { firstMonth?: string; lastMonth?: string }) =>
      (await usage(UsageGrouping.MONTH, more)).map(({ month }) => month);
    expect(await months({ firstMonth: '2026-11' })).toEqual(['2026-11']);
    expect(await months({ lastMonth: '2026-10' })).toEqual(['2026-10']);
    expect(await months({ firstMonth: '2026-10', lastMonth: '2026-11' })).toEqual(['2026-11', '2026-10']);
    expect(await months({ firstMonth: '2027-01' })).toEqual([]);
    for (const [more, field] of [
      [{ firstMonth: '2026-13' }, 'first_month'],
      [{ lastMonth: 'november' }, 'last_month'],
      [{ firstMonth: '2026-11', lastMonth: '2026-10' }, 'last_month'],
    ] as const) {
      expect(violationsOf(await errorOf(usage(UsageGrouping.MONTH, more)))[0]!.field).toBe(field);
    }
  });

  test('is in the summary as a whole, and is nobody else’s', async () => {
    const { summary } = await member.getOrganizationSummary({ orgId: other.orgId });
    expect(summary!.usage).toMatchObject({
      jobs: 4n,
      completed: 3n,
      molecules: 12n,
      coreMs: 13_500n,
      savedCoreMs: 2100n,
    });
    const foreign = await errorOf(member.listUsage({ orgId: lab.orgId }));
    expect([foreign.code, reasonOf(foreign)]).toEqual([Code.NotFound, 'ORGANIZATION_NOT_FOUND']);
  });
});
