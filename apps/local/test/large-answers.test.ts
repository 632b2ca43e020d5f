import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { clientOptions } from '@mad/postgres';
import { createLogger } from '@mad/process';
import { JobRunService } from '@mad/proto/results';
import pg from 'pg';
import { startLocal, type LocalSystem } from '../src/start.ts';
import { newOrganization, signIn, type Person } from './support/people.ts';
import { alkanes, ended, examplePipeline, IMATINIB, library, submit } from './support/science.ts';

/** Whatever a page of results was asked for, it comes through the gateway, which takes 4 MiB a message. */

const SLOW = 120_000;
const ITEMS = 60;
const LENGTH = 100_000;

let home: string;
let system: LocalSystem;
let admin: Person;
let jobId: string;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'mad-large-'));
  const logger = createLogger('local', { level: 'silent' });
  system = await startLocal({ home, logger, anyPorts: true, postgresSettings: { fsync: 'off' } });
  const platform = await signIn(system.url, system.secrets.administrator);
  const made = await newOrganization(system.url, platform, 'acme');
  ({ admin } = made);
  const moleculeSetId = await library(admin, alkanes(ITEMS));
  const pipelineId = await examplePipeline(admin, 'ligand-screening.json');
  ({ jobId } = await submit(admin, { pipelineId, moleculeSetId, parameters: { reference: IMATINIB } }));
  await ended(admin, jobId);
  // What an engine of another kind would have said of them.
  const server = new pg.Client(clientOptions(system.postgres.adminUrl.replace(/\/postgres$/, `/${made.databaseName}`)));
  await server.connect();
  const said = `jsonb_build_object('item', item_no, 'log', rpad('', $2::int, md5(item_no::text)))`;
  await server.query(`UPDATE results.task_results SET result_data = ${said} WHERE job_id = $1`, [jobId, LENGTH]);
  await server.end();
}, SLOW);

afterAll(async () => {
  await system?.close();
  await rm(home, { recursive: true, force: true });
}, SLOW);

interface Seen {
  taskId: string;
  itemNo: number;
  resultData?: { item?: number; log?: string } | undefined;
}

async function whole(read: (pageToken: string) => Promise<{ page: Seen[]; nextPageToken: string }>): Promise<number> {
  const seen: Seen[] = [];
  let pages = 0;
  for (let token = ''; ; pages += 1) {
    const { page, nextPageToken } = await read(token);
    seen.push(...page);
    if (nextPageToken === '') break;
    token = nextPageToken;
  }
  for (const { itemNo, resultData } of seen) {
    expect([resultData?.item, resultData?.log?.length]).toEqual([itemNo, LENGTH]);
  }
  expect(new Set(seen.map(({ taskId, itemNo }) => `${taskId}/${itemNo}`)).size).toBe(seen.length);
  expect(pages).toBeGreaterThan(1);
  return seen.length;
}

test.each([
  ['items', 'listWorkItems', 'items'],
  ['hits', 'listHits', 'hits'],
] as const)(
  'large %s come whole over Connect and over REST',
  async (path, method, field) => {
    const { orgId, accessToken } = admin;
    const counts: number[] = [];
    const client = admin.client(JobRunService);
    counts.push(
      await whole(async (pageToken) => {
        const answer = await client[method]({ orgId, jobId, pageSize: 1000, pageToken });
        return { page: (answer as unknown as Record<string, Seen[]>)[field]!, nextPageToken: answer.nextPageToken };
      }),
    );
    counts.push(
      await whole(async (pageToken) => {
        const query = new URLSearchParams({ page_size: '1000', page_token: pageToken });
        const response = await fetch(
          `${system.url}/v1/organizations/${orgId}/jobs/${jobId}/${path}?${query.toString()}`,
          {
            headers: { authorization: `Bearer ${accessToken}` },
          },
        );
        expect(response.status).toBe(200);
        const body = (await response.json()) as Record<string, Seen[]> & { nextPageToken: string };
        return { page: body[field]!, nextPageToken: body.nextPageToken };
      }),
    );
    expect(counts[0]).toBeGreaterThanOrEqual(ITEMS);
    expect(counts[1]).toBe(counts[0]);
  },
  SLOW,
);
