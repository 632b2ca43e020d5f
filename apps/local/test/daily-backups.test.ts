import { spawn } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { readdir, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { removeEmbeddedPostgres, superuserUrl } from '@mad/embedded-postgres';
import pg from 'pg';
import { databaseUrl } from '../src/metadata-backup.ts';
import { runningState } from '../src/with-postgres.ts';
import { eventually } from './support/fleet.ts';

const MAD = fileURLToPath(new URL('../../cli/src/main.ts', import.meta.url));
const SLOW = 240_000;
const home = mkdtempSync(join(tmpdir(), 'mad-daily-'));

let url: string;
let metadata: pg.Client;

/** Runs the command line as a person does. */
async function mad(...args: string[]): Promise<{ code: number | null; answer: unknown; said: string }> {
  const child = spawn(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', MAD, '--home', home, '--json', ...args],
    {
      env: {
        PATH: process.env.PATH,
        HOME: process.env.HOME,
        PROVISIONER_STOCK_SIZE: '0',
        PROVISIONER_METADATA_BACKUP_KEEP: '1',
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
  const [stdout, said] = await Promise.all([text(child.stdout), text(child.stderr)]);
  const last = stdout.trim().split('\n').at(-1)!;
  return { code: await ended, answer: last === '' ? undefined : JSON.parse(last), said };
}

const archives = (folder: string): Promise<string[]> => readdir(join(home, 'objects', folder)).catch(() => []);

const gauge = async (name: string): Promise<number | undefined> => {
  const found = new RegExp(`^${name}(?:{[^}]*})? (.+)$`, 'm').exec(await (await fetch(`${url}/metrics`)).text())?.[1];
  return found === undefined ? undefined : Number(found);
};

beforeAll(async () => {
  expect(await mad('up')).toMatchObject({ code: 0 });
  expect(await mad('org', 'create', 'acme', '--admin', 'alice@acme.example')).toMatchObject({ code: 0 });
  const state = runningState(home)!;
  url = state.url;
  const adminUrl = await superuserUrl(join(home, 'postgres'), state.postgres.port);
  metadata = new pg.Client({ connectionString: databaseUrl(adminUrl, 'mad_metadata') });
  metadata.on('error', () => undefined);
  await metadata.connect();
}, SLOW);

afterAll(async () => {
  await metadata?.end();
  await mad('down');
  await removeEmbeddedPostgres(join(home, 'postgres'));
  await rm(home, { recursive: true, force: true });
}, SLOW);

test(
  'by the clock alone a local system has archives of the metadata, of its keys and of every organization; health tells when',
  async () => {
    await eventually('the metadata is archived', async () => (await archives('metadata')).length === 1);
    expect(await archives('metadata-keys')).toHaveLength(1);
    // The provisioner's clock strikes every five minutes.
    await metadata.query(`INSERT INTO provisioner_boss.job (name, data) VALUES ('backup-schedule', '{}')`);
    await eventually('the organization is backed up', async () => {
      const { rows } = await metadata.query(
        'SELECT FROM provisioner.backups WHERE scheduled AND completed_at IS NOT NULL',
      );
      return rows.length === 1;
    });
    const part = await eventually('health knows it', async () => {
      const { code, answer } = await mad('health');
      expect(code).toBe(0);
      const { parts } = answer as { parts: { part: string; state: string }[] };
      const found = parts.find((one) => one.part === 'Metadata backup')!;
      return found.state !== 'none yet' && found;
    });
    expect(part.state).toMatch(/^of \d{4}-\d\d-\d\dT[\d:.]+Z$/);
    expect(await gauge('metadata_backup_age_seconds')).toBeLessThan(SLOW / 1_000);
    expect(await gauge('metadata_backup_failed')).toBe(0);
  },
  SLOW,
);

interface Outcome {
  org_id: string;
  backup: { rows: string } | null;
  metadata?: { archive: string; rows: number } | null;
  error: string;
}

test(
  'a backup of all has the metadata as well, after every organization; where it fails, that is told and the rest is made',
  async () => {
    const before = await archives('metadata');
    const made = await mad('backup', 'create', '--all');
    expect(made.code).toBe(0);
    const [first, last, ...more] = made.answer as Outcome[];
    expect(more).toEqual([]);
    expect(first).toMatchObject({ backup: expect.anything(), error: '' });
    const metadataMade = { archive: expect.stringMatching(/^metadata\//) };
    expect(last).toMatchObject({ backup: null, metadata: metadataMade, error: '' });
    // As many are kept as the settings say.
    expect(await archives('metadata')).toEqual([last!.metadata!.archive.replace('metadata/', '')]);
    expect(await archives('metadata')).not.toEqual(before);

    await rename(join(home, 'objects', 'metadata-keys'), join(home, 'away'));
    await writeFile(join(home, 'objects', 'metadata-keys'), 'in the way');
    const { code, answer } = await mad('backup', 'create', '--all');
    await rm(join(home, 'objects', 'metadata-keys'));
    await rename(join(home, 'away'), join(home, 'objects', 'metadata-keys'));
    expect(code).toBe(1);
    const [acme, own] = answer as Outcome[];
    expect(acme).toMatchObject({ backup: expect.anything(), error: '' });
    expect(own).toMatchObject({ metadata: null, error: expect.stringMatching(/./) });
  },
  SLOW,
);

test(
  'operations, backups and rollouts are listed beyond one page of a thousand, as many as are asked for',
  async () => {
    await metadata.query(
      `WITH made AS (
         INSERT INTO provisioner.operations (operation_id, org_id, schema, kind, state, started_at, ended_at)
           SELECT gen_random_uuid(), t.org_id, t.schema, 'backup', 'failed', now() - n * interval '1 second', now()
           FROM provisioner.tenants t, generate_series(1, 1203) n RETURNING operation_id, org_id, schema, started_at)
       INSERT INTO provisioner.backups (backup_id, org_id, schema, operation_id, created_at)
         SELECT gen_random_uuid(), org_id, schema, operation_id, started_at FROM made`,
    );
    await metadata.query(
      `INSERT INTO provisioner.migration_rollouts (rollout_id, schema, version, state, rules, actor_kind, created_at, ended_at)
       SELECT gen_random_uuid(), 'results', 'none', 'aborted', '{}', 'platform', now() - n * interval '1 second', now()
       FROM generate_series(1, 1203) n`,
    );
    const count = async (table: string): Promise<number> =>
      (await metadata.query<{ n: number }>(`SELECT count(*)::int AS n FROM provisioner.${table}`)).rows[0]!.n;
    const listed = async (...args: string[]): Promise<Record<string, string>[]> => {
      const { code, answer } = await mad(...args);
      expect(code).toBe(0);
      return answer as Record<string, string>[];
    };
    const operations = await listed('operation', 'list', '--limit', '5000');
    expect(operations).toHaveLength(await count('operations'));
    expect(new Set(operations.map(({ operationId }) => operationId)).size).toBe(operations.length);
    expect(operations.length).toBeGreaterThan(1_203);
    expect(await listed('operation', 'list', '--limit', '1100')).toEqual(operations.slice(0, 1_100));
    const backups = await listed('backup', 'list', '--limit', '5000');
    expect(backups).toHaveLength(await count('backups'));
    expect(backups.length).toBeGreaterThan(1_203);
    expect(await listed('db', 'rollout', 'list', '--limit', '5000')).toHaveLength(1_203);
  },
  SLOW,
);
