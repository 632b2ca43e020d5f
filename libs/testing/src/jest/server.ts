import { mkdtemp, readdir, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readPostgresMajor, removeEmbeddedPostgres, startEmbeddedPostgres, type PgMajor } from '@mad/embedded-postgres';
import { readEnv, type Env } from '@mad/process';
import { alive } from './alive.ts';
import { postgresImage, startContainer, whyNoContainer } from './container.ts';
import type { TestServer } from './test-server.ts';

const PREFIX = 'mad-test-postgres-';
const PID_FILE = 'run.pid';

/** Data of a test run are worth nothing after a crash. The many small pools of parallel tests want more connections. */
const SETTINGS = { fsync: 'off', full_page_writes: 'off', max_connections: '300', max_wal_size: '4GB' };

/** Removes what runs left behind that were killed before their teardown. */
async function removeAbandoned(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    if (!name.startsWith(PREFIX)) continue;
    const folder = join(tmpdir(), name);
    const pid = Number(await readFile(join(folder, PID_FILE), 'utf8').catch(() => '0'));
    // Zero: a run that has only just made its folder, or somebody else's.
    if (pid > 0 && !alive(pid)) await removeEmbeddedPostgres(folder).catch(() => undefined);
  }
}

async function embedded(major: PgMajor | undefined): Promise<TestServer> {
  await removeAbandoned();
  const dataDir = await mkdtemp(join(tmpdir(), PREFIX));
  await writeFile(join(dataDir, PID_FILE), String(process.pid));
  const server = await startEmbeddedPostgres({ dataDir, settings: SETTINGS, major });
  return {
    kind: 'embedded',
    adminUrl: server.adminUrl,
    async stop() {
      await server.stop();
      await removeEmbeddedPostgres(dataDir);
    },
  };
}

/** What a run may ask for by MAD_TEST_POSTGRES. */
const WAYS = ['auto', 'container', 'embedded'];

/**
 * The server a run tests against. MAD_TEST_DATABASE_URL (a superuser's URL) names one that exists. Else
 * MAD_TEST_POSTGRES says which kind to start: `container`, `embedded`, or `auto`: a container of the Postgres that
 * production runs where a Docker engine has its image, else an embedded one of the major in MAD_POSTGRES_MAJOR. In CI, and
 * where a major is named, `embedded` is the default, so that what was tested does not depend on the machine; elsewhere
 * `auto`. `say` is told of a container, and why there is none.
 */
export async function startServer(env: Env, say: (message: string) => void): Promise<TestServer> {
  const given = env['MAD_TEST_DATABASE_URL'];
  if (given) return { kind: 'given', adminUrl: given, stop: async () => undefined };
  const way = env['MAD_TEST_POSTGRES'] ?? (env['CI'] || env['MAD_POSTGRES_MAJOR'] ? 'embedded' : 'auto');
  if (!WAYS.includes(way)) throw new Error(`MAD_TEST_POSTGRES must be one of ${WAYS.join(', ')}, not ${way}`);
  const ownServer = () => embedded(readEnv(env, readPostgresMajor));
  if (way === 'embedded') return ownServer();
  const missing = await whyNoContainer(env);
  if (missing !== undefined) {
    if (way === 'container') throw new Error(`MAD_TEST_POSTGRES=container: ${missing}`);
    return ownServer();
  }
  try {
    const server = await startContainer(env, SETTINGS);
    say(`the tests use Postgres in a container of ${postgresImage(env)}; MAD_TEST_POSTGRES=embedded does without`);
    return server;
  } catch (error) {
    if (way === 'container') throw error;
    say(`the tests use the embedded Postgres: ${postgresImage(env)} did not start: ${(error as Error).message}`);
    return ownServer();
  }
}
