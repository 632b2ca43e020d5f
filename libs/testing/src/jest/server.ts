import { mkdtemp, readdir, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readPostgresMajor, removeEmbeddedPostgres, startEmbeddedPostgres, type PgMajor } from '@mad/embedded-postgres';
import { readEnv } from '@mad/process';

/** The Postgres server of a test run. */
export interface TestServer {
  adminUrl: string;
  stop(): Promise<void>;
}

const PREFIX = 'mad-test-postgres-';
const PID_FILE = 'run.pid';

/** Data of a test run are worth nothing after a crash. The many small pools of parallel tests want more connections. */
const SETTINGS = { fsync: 'off', full_page_writes: 'off', max_connections: '300', max_wal_size: '4GB' };

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

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
    adminUrl: server.adminUrl,
    async stop() {
      await server.stop();
      await removeEmbeddedPostgres(dataDir);
    },
  };
}

/** A container of the Postgres that production runs. Loaded only when asked for: the library takes 0.3 s to load. */
async function container(image: string): Promise<TestServer> {
  const { GenericContainer, Wait } = await import('testcontainers');
  const password = 'only-for-this-container';
  const started = await new GenericContainer(image)
    .withEnvironment({ POSTGRES_PASSWORD: password })
    .withCommand(['postgres', ...Object.entries(SETTINGS).flatMap(([name, value]) => ['-c', `${name}=${value}`])])
    .withExposedPorts(5432)
    // The first start only prepares the data; the second one stays.
    .withWaitStrategy(Wait.forLogMessage(/ready to accept connections/, 2))
    .start();
  const host = started.getHost();
  return {
    adminUrl: `postgres://postgres:${password}@${host}:${started.getMappedPort(5432)}/postgres?sslmode=disable`,
    async stop() {
      await started.stop();
    },
  };
}

/**
 * The server a run tests against: the one at MAD_TEST_DATABASE_URL (a superuser's URL), a container when
 * MAD_TEST_CONTAINERS is 1, else an embedded one of the major in MAD_POSTGRES_MAJOR.
 */
export async function startServer(env: NodeJS.ProcessEnv): Promise<TestServer> {
  const given = env['MAD_TEST_DATABASE_URL'];
  if (given) return { adminUrl: given, stop: async () => undefined };
  if (env['MAD_TEST_CONTAINERS'] === '1') return container(env['MAD_TEST_POSTGRES_IMAGE'] ?? 'postgres:16');
  return embedded(readEnv(env, readPostgresMajor));
}
