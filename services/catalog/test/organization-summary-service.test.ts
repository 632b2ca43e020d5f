import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Code, type Client } from '@connectrpc/connect';
import { uuidv7 } from '@mad/process';
import { OrganizationSummaryService } from '@mad/proto/catalog';
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
