import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Code, ConnectError } from '@connectrpc/connect';
import { clientOptions } from '@mad/postgres';
import { createLogger, uuidv7 } from '@mad/process';
import { JobService, JobState } from '@mad/proto/catalog';
import { MemberService, OrganizationService, OrganizationStatus } from '@mad/proto/identity';
import { TenantService, TenantState } from '@mad/proto/provisioner';
import { JobRunService } from '@mad/proto/results';
import { reasonOf } from '@mad/rpc';
import pg from 'pg';
import { startLocal, type LocalSystem } from '../src/start.ts';
import { eventually } from './support/fleet.ts';
import { signIn, type Person } from './support/people.ts';
import { alkanes, ended, examplePipeline, IMATINIB, library, submit } from './support/science.ts';

const SLOW = 120_000;
const parameters = { reference: IMATINIB };

let home: string;
let system: LocalSystem;
let platform: Person;
let server: pg.Client;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'mad-lazy-'));
  const logger = createLogger('local', { level: 'silent' });
  const outer = { PROVISIONING: 'on_first_write', PROVISIONER_SWEEP_MS: '500' };
  system = await startLocal({ home, logger, anyPorts: true, outer, postgresSettings: { fsync: 'off' } });
  platform = await signIn(system.url, system.secrets.administrator);
  server = new pg.Client(clientOptions(system.postgres.adminUrl));
  await server.connect();
}, SLOW);

afterAll(async () => {
  await server?.end();
  await system?.close();
  await rm(home, { recursive: true, force: true });
}, SLOW);

/** A new organization, its administrator, and what a job needs. */
async function organization(slug: string) {
  const request = { requestId: uuidv7(), slug, name: slug };
  const { organization: made } = await platform.client(OrganizationService).createOrganization(request);
  const { orgId, status } = made!;
  const login = { email: `admin@${slug}.example`, password: `password of ${slug}` };
  const member = { orgId, requestId: uuidv7(), displayName: slug, roles: ['admin'], ...login };
  await platform.client(MemberService).addFirstMember(member);
  const admin = await signIn(system.url, { ...login, organization: slug });
  const moleculeSetId = await library(admin, alkanes(5));
  const pipelineId = await examplePipeline(admin, 'ligand-screening.json');
  return { orgId, status, admin, job: { pipelineId, moleculeSetId, parameters } };
}

const tenantsOf = async (orgId: string) =>
  (await platform.client(TenantService).listTenants({ orgId })).tenants.map(({ state }) => TenantState[state]);
const databasesOf = async (orgId: string) => {
  const sql = 'SELECT datname FROM pg_database WHERE datname LIKE $1';
  return (await server.query(sql, [`%${orgId.replaceAll('-', '')}%`])).rowCount;
};

test(
  'an organization begins without a database; reading makes none and says why; the first job makes it and completes',
  async () => {
    const acme = await organization('acme');
    const { orgId, admin } = acme;
    expect(acme.status).toBe(OrganizationStatus.ACTIVE);
    const jobId = uuidv7();
    const read = await admin
      .client(JobRunService)
      .listHits({ orgId, jobId })
      .then(
        () => undefined,
        (error: unknown) => ConnectError.from(error),
      );
    expect([read?.code, reasonOf(read)]).toEqual([Code.FailedPrecondition, 'TENANT_NOT_PROVISIONED']);
    for (const path of ['', '/hits', '/events', '/items']) {
      const url = `${system.url}/v1/organizations/${orgId}/jobs/${jobId}${path}`;
      const response = await fetch(url, { headers: { authorization: `Bearer ${admin.accessToken}` } });
      expect(response.status).toBeGreaterThanOrEqual(400);
      expect(response.status).toBeLessThan(500);
    }
    expect([await tenantsOf(orgId), await databasesOf(orgId)]).toEqual([[], 0]);

    const { jobId: first } = await submit(admin, acme.job);
    const done = await ended(admin, first);
    expect(done).toMatchObject({ state: JobState.COMPLETED, counters: { requested: 5n, scored: 5n } });
    expect([await tenantsOf(orgId), await databasesOf(orgId)]).toEqual([['READY'], 1]);
  },
  SLOW,
);

test(
  'first jobs that race make one database, and all complete',
  async () => {
    const { orgId, admin, job } = await organization('globex');
    const jobs = await Promise.all(Array.from({ length: 6 }, () => submit(admin, job)));
    for (const { jobId } of jobs) expect((await ended(admin, jobId)).state).toBe(JobState.COMPLETED);
    expect([await tenantsOf(orgId), await databasesOf(orgId)]).toEqual([['READY'], 1]);
  },
  SLOW,
);

test(
  'where the database cannot be made the job waits and says why, and goes on by itself when it can',
  async () => {
    const { orgId, admin, job } = await organization('initech');
    await server.query('ALTER ROLE mad_provisioner_admin NOCREATEDB');
    let jobId: string;
    try {
      ({ jobId } = await submit(admin, job));
      const waiting = await eventually('the job says why it waits', async () => {
        const { job: one } = await admin.client(JobService).getJob({ orgId, jobId });
        return one!.detail.includes('permission denied') && one!;
      });
      expect(waiting.state).toBe(JobState.PENDING);
      expect(waiting.detail).toMatch(/^waiting: making the organization's database failed: .*; it is tried again$/);
      expect(await tenantsOf(orgId)).toEqual(['FAILED']);
    } finally {
      await server.query('ALTER ROLE mad_provisioner_admin CREATEDB');
    }
    expect((await ended(admin, jobId, SLOW)).state).toBe(JobState.COMPLETED);
    expect([await tenantsOf(orgId), await databasesOf(orgId)]).toEqual([['READY'], 1]);
  },
  SLOW,
);
