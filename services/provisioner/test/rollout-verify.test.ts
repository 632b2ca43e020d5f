import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import type { MigrationClass } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import type { RpcServer } from '@mad/rpc';
import { databaseName } from '../src/domain/names.ts';
import { noteMigrations, serveSchemaOwner } from './neighbours.ts';
import { inside, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'verified';
const FLEET = 6;
const [CREATE, STARS] = noteMigrations(SCHEMA) as [MigrationClass, MigrationClass];
const MAD = fileURLToPath(new URL('../../../apps/cli/src/main.ts', import.meta.url));
const PERMISSIONS = ['read', 'start', 'control'].map((verb) => `platform.rollouts.${verb}`);

let mad: RunningProvisioner;
let owner: RpcServer;
let folder: string;
let orgs: string[];
let staging: string[];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mad-verify-'));
  mad = await runProvisioner({ schema: SCHEMA, migrations: [CREATE] });
  owner = mad.owner;
  orgs = Array.from({ length: FLEET }, () => uuidv7()).toSorted();
  for (const orgId of orgs) await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  // Neither the first nor the last.
  staging = [orgs[1]!, orgs[4]!];
  const labels = mad.tenantsAs(await mad.platform('platform.tenants.label'));
  for (const orgId of staging) await labels.labelTenant({ orgId, schema: SCHEMA, labels: { staging: '' } });
  const { port } = owner;
  await owner.close();
  owner = await serveSchemaOwner(SCHEMA, [CREATE, STARS], port);
  // Longer than provisioner remembers the list of migrations.
  await delay(1_100);
}, 120_000);

afterAll(async () => {
  await owner?.close();
  await mad?.close();
  await rm(folder, { recursive: true, force: true });
});

// Everything back to the old version, by hand.
beforeEach(async () => {
  for (const orgId of orgs) {
    await inside(databaseName(SCHEMA, orgId), (client) =>
      client.query(`DROP FUNCTION IF EXISTS ${SCHEMA}.star_count(); ALTER TABLE ${SCHEMA}.notes DROP COLUMN IF EXISTS stars;
        DELETE FROM ${SCHEMA}.migrations WHERE name = '${STARS.migrationName}'`),
    );
  }
});

const migrated = async (): Promise<string[]> => {
  const found: string[] = [];
  for (const orgId of orgs) {
    const { rowCount } = await inside(databaseName(SCHEMA, orgId), (client) =>
      client.query(`SELECT FROM ${SCHEMA}.migrations WHERE name = $1`, [STARS.migrationName]),
    );
    if (rowCount === 1) found.push(orgId);
  }
  return found;
};

interface Ended {
  code: number | null;
  answer: { rolloutId: string; state: string; reason: string };
  shown: string;
}

/** `mad db rollout start --verify <command>` as a process of its own; the command finds `mad` in MAD. */
async function start(verify: string): Promise<Ended> {
  const command = [process.execPath, '--disable-warning=ExperimentalWarning', MAD, '--home', folder, '--json'];
  const env = {
    ...process.env,
    NODE_OPTIONS: '',
    MAD_URL: mad.url,
    MAD_TOKEN: await mad.platform(...PERMISSIONS),
    MAD: command.map((part) => `'${part}'`).join(' '),
  };
  const args = ['db', 'rollout', 'start', '--schema', SCHEMA, '--verify', verify, '--canaries', '1'];
  const child = spawn(command[0]!, [...command.slice(1), ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const [out, shown, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close') as Promise<[number | null]>,
  ]);
  return { code, answer: JSON.parse(out) as Ended['answer'], shown };
}

test('the command of --verify runs when staging is done and nobody else is, is told which these are, and with exit code 0 the others follow', async () => {
  const seen = join(folder, 'seen.json');
  const where = join(folder, 'where.sh');
  // As an operator's would: which databases are they, and what is in them by now.
  await writeFile(where, `eval "$MAD db rollout get $MAD_ROLLOUT --all" > '${seen}' && echo "3 of 3 checks passed"`);
  const { code, answer, shown } = await start(`sh '${where}'`);
  expect({ code, state: answer.state, reason: answer.reason }).toEqual({
    code: 0,
    state: 'ROLLOUT_STATE_SUCCEEDED',
    reason: '',
  });
  expect(shown).toContain('3 of 3 checks passed');
  expect(await migrated()).toEqual(orgs);
  const told = JSON.parse(await readFile(seen, 'utf8')) as {
    rolloutId: string;
    state: string;
    runs: { orgId: string; databaseName: string; wave: number; state: string }[];
  };
  expect({ rolloutId: told.rolloutId, state: told.state }).toEqual({
    rolloutId: answer.rolloutId,
    state: 'ROLLOUT_STATE_WAITING',
  });
  const done = told.runs.filter(({ state }) => state === 'ROLLOUT_RUN_STATE_SUCCEEDED');
  expect(done.map(({ orgId, databaseName: name, wave }) => ({ orgId, name, wave }))).toEqual(
    staging.map((orgId) => ({ orgId, name: databaseName(SCHEMA, orgId), wave: 0 })),
  );
  expect(new Set(told.runs.filter((run) => !done.includes(run)).map(({ state }) => state))).toEqual(
    new Set(['ROLLOUT_RUN_STATE_PENDING']),
  );
}, 120_000);

test('any other exit code halts it: nobody but staging was touched, and the reason is the end of what the command printed', async () => {
  const { code, answer, shown } = await start(`echo looking; echo '2 of 40 checks failed' >&2; exit 3`);
  expect({ code, state: answer.state }).toEqual({ code: 1, state: 'ROLLOUT_STATE_HALTED' });
  expect(answer.reason).toContain('the verification failed: exit code 3');
  expect(answer.reason).toContain('2 of 40 checks failed');
  expect(shown).toContain('2 of 40 checks failed');
  expect(await migrated()).toEqual(staging);
  await mad.rollouts().abortRollout({ rolloutId: answer.rolloutId });
}, 120_000);
