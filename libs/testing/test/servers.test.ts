import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { bootstrapServer, clientOptions, createMetadataDatabase } from '@mad/postgres';
import pg from 'pg';
import { removeAbandonedContainers, whyNoContainer } from '../src/jest/container.ts';
import { askEngine } from '../src/jest/docker-engine.ts';
import { startServer } from '../src/jest/server.ts';
import type { TestServer } from '../src/jest/test-server.ts';

const SLOW = 120_000;
const quiet = () => undefined;
const missing = await whyNoContainer(process.env);

async function ask<R extends pg.QueryResultRow>(url: string, sql: string): Promise<R[]> {
  const client = new pg.Client(clientOptions(url));
  await client.connect();
  try {
    return (await client.query<R>(sql)).rows;
  } finally {
    await client.end();
  }
}

/** What every way of getting a Postgres for tests must give. */
function serverContract(kind: TestServer['kind'], start: () => Promise<TestServer>): void {
  let server: TestServer;

  beforeAll(async () => {
    server = await start();
  }, SLOW);
  afterAll(() => server?.stop(), SLOW);

  const as = (user: string, password: string, database: string): string => {
    const url = new URL(server.adminUrl);
    url.username = user;
    url.password = password;
    url.pathname = `/${database}`;
    return url.href;
  };

  test('is of its kind, of a version we serve, and administered by the URL it names', async () => {
    expect(server.kind).toBe(kind);
    const [facts] = await ask<{ version: number; super: boolean; database: string }>(
      server.adminUrl,
      `SELECT current_setting('server_version_num')::int / 10000 AS version, current_database() AS database,
         (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS super`,
    );
    expect(facts).toMatchObject({ super: true, database: 'postgres' });
    expect(facts!.version).toBeGreaterThanOrEqual(16);
  });

  test('has room for the pools of tests that run side by side, and is not slowed by what only crashes need', async () => {
    const [settings] = await ask(
      server.adminUrl,
      `SELECT current_setting('max_connections') AS max, current_setting('reserved_connections') AS reserved,
         current_setting('fsync') AS fsync, current_setting('jit') AS jit, current_setting('timezone') AS zone`,
    );
    expect(settings).toEqual({ max: '300', reserved: '5', fsync: 'off', jit: 'off', zone: 'UTC' });
  });

  test('takes roles, extensions, a metadata database and a clone of it; a login comes in by its password only', async () => {
    const password = 'of the contract';
    const services = { contract: { app: password, system: password } };
    await bootstrapServer(server.adminUrl, { services, migratorPassword: password, database: null });
    await createMetadataDatabase(server.adminUrl, { database: 'contract', services: ['contract'] });
    await ask(server.adminUrl, 'CREATE DATABASE contract_clone TEMPLATE contract STRATEGY WAL_LOG');
    try {
      const login = as('mad_contract', password, 'contract');
      expect(await ask(login, 'SELECT current_user AS who, current_schema AS home')).toEqual([
        { who: 'mad_contract', home: 'contract' },
      ]);
      const extensions = await ask<{ extname: string }>(login, 'SELECT extname FROM pg_extension ORDER BY 1');
      expect(extensions.map(({ extname }) => extname)).toEqual(
        expect.arrayContaining(['btree_gin', 'citext', 'pg_trgm', 'pgcrypto']),
      );
      await expect(ask(as('mad_contract', 'another', 'contract'), 'SELECT 1')).rejects.toMatchObject({ code: '28P01' });
    } finally {
      for (const name of ['contract_clone', 'contract'])
        await ask(server.adminUrl, `DROP DATABASE ${name} WITH (FORCE)`);
      await ask(server.adminUrl, 'DROP ROLE mad_contract, mad_contract_system, mad_contract_owner');
    }
  });

  test(
    'is gone after stop, with its data, unless it was given',
    async () => {
      await server.stop();
      const answer = ask(server.adminUrl, 'SELECT 1 AS one');
      if (kind === 'given') expect(await answer).toEqual([{ one: 1 }]);
      else await expect(answer).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    },
    SLOW,
  );
}

describe('an embedded server', () => {
  serverContract('embedded', () => startServer({ MAD_TEST_POSTGRES: 'embedded' }, quiet));
});

describe('a given server', () => {
  let host: TestServer;
  beforeAll(async () => {
    host = await startServer({ MAD_TEST_POSTGRES: 'embedded' }, quiet);
  }, SLOW);
  afterAll(() => host?.stop(), SLOW);
  serverContract('given', () => startServer({ MAD_TEST_DATABASE_URL: host.adminUrl }, quiet));
});

// A run that asked for none of them, as CI's does, has nothing to skip where there is no engine.
const inContainer = missing === undefined ? describe : describe.skip;
const describeContainers =
  missing !== undefined && process.env['MAD_TEST_POSTGRES'] === 'embedded' ? undefined : inContainer;
describeContainers?.(`a server in a container${missing === undefined ? '' : ` (skipped: ${missing})`}`, () => {
  const env = { ...process.env, MAD_TEST_DATABASE_URL: undefined, MAD_TEST_POSTGRES: 'container' };

  serverContract('container', () => startServer(env, quiet));

  test(
    'is what a run gets by itself outside CI, and says so',
    async () => {
      const said: string[] = [];
      const outside = { ...env, MAD_TEST_POSTGRES: undefined, CI: undefined };
      const server = await startServer(outside, (message) => said.push(message));
      try {
        expect([server.kind, said]).toEqual(['container', [expect.stringContaining('in a container of postgres:16')]]);
      } finally {
        await server.stop();
      }
    },
    SLOW,
  );

  test(
    'goes at the next start when its run was killed; the containers of living runs stay',
    async () => {
      const ours = await startServer(env, quiet);
      const source = `
        import { startServer } from ${JSON.stringify(new URL('../src/jest/server.ts', import.meta.url).href)};
        const server = await startServer({ ...process.env, MAD_TEST_POSTGRES: 'container' }, () => undefined);
        console.log(server.adminUrl);
        setInterval(() => undefined, 1000);`;
      const childEnv = { ...process.env, MAD_TEST_DATABASE_URL: '', NODE_OPTIONS: '' };
      const child = spawn(process.execPath, ['--input-type=module-typescript', '--eval', source], {
        env: childEnv,
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      try {
        const [url] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
        const ended = once(child, 'exit');
        child.kill('SIGKILL');
        await ended;
        expect(await ask(url, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
        const volumes = await labelled(child.pid!);
        expect(volumes).toHaveLength(1);
        await removeAbandonedContainers(process.env);
        await expect(ask(url, 'SELECT 1')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
        expect(await labelled(child.pid!)).toEqual([]);
        expect((await askEngine(process.env, 'GET', `/volumes/${volumes[0]!}`)).status).toBe(404);
        expect(await ask(ours.adminUrl, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
      } finally {
        child.kill('SIGKILL');
        await ours.stop();
      }
    },
    SLOW,
  );
});

/** The volumes of the containers of a process's run. */
async function labelled(pid: number): Promise<string[]> {
  const filters = encodeURIComponent(
    JSON.stringify({ label: [`mad.test-run.host=${hostname()}`, `mad.test-run.pid=${pid}`] }),
  );
  const { body } = await askEngine(process.env, 'GET', `/containers/json?all=true&filters=${filters}`);
  return (body as { Mounts: { Name: string }[] }[]).flatMap(({ Mounts }) => Mounts.map(({ Name }) => Name));
}

describe('whether a container can be had', () => {
  let folder: string;
  const open: Server[] = [];
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'mad-engine-'));
  });
  afterAll(async () => {
    for (const server of open) {
      server.closeAllConnections();
      server.close();
    }
    await rm(folder, { recursive: true, force: true });
  });

  /** An engine that answers every request so, or not at all. */
  async function engine(name: string, answer?: { status: number; body: string }): Promise<string> {
    const server = createServer((_request, response) => {
      if (answer) response.writeHead(answer.status).end(answer.body);
    });
    open.push(server);
    const path = join(folder, name);
    server.listen(path);
    await once(server, 'listening');
    return `unix://${path}`;
  }

  const timed = async (host: string): Promise<[reason: string | undefined, ms: number]> => {
    const began = performance.now();
    const reason = await whyNoContainer({ DOCKER_HOST: host });
    return [reason, performance.now() - began];
  };

  test('is known at once where no engine is: no socket, a dead socket, nobody at the port', async () => {
    await writeFile(join(folder, 'dead.sock'), '');
    // The first request of a process loads what the next ones have.
    await timed(`unix://${folder}/none.sock`);
    for (const host of [`unix://${folder}/none.sock`, `unix://${folder}/dead.sock`, 'tcp://127.0.0.1:9']) {
      const [reason, ms] = await timed(host);
      expect(reason).toMatch(/^no Docker engine at .*: E[A-Z]+$/);
      expect(ms).toBeLessThan(50);
    }
  });

  test('is not waited for when an engine accepts and does not answer', async () => {
    const [reason, ms] = await timed(await engine('silent.sock'));
    expect(reason).toContain('no answer within 2000 ms');
    expect(ms).toBeLessThan(4_000);
  });

  test('takes both, an engine and the image', async () => {
    const none = await engine('none.sock', { status: 404, body: '{"message":"No such image"}' });
    expect(await whyNoContainer({ DOCKER_HOST: none })).toBe('no image postgres:16: docker pull postgres:16');
    expect(await whyNoContainer({ DOCKER_HOST: none, MAD_TEST_POSTGRES_IMAGE: 'postgres:18' })).toContain(
      'postgres:18',
    );
    const has = await engine('has.sock', { status: 200, body: '{}' });
    expect(await whyNoContainer({ DOCKER_HOST: has })).toBeUndefined();
    const other = await engine('other.sock', { status: 200, body: '<html>' });
    expect(await whyNoContainer({ DOCKER_HOST: other })).toContain('it does not speak JSON');
    expect(await whyNoContainer({ DOCKER_HOST: 'ssh://far.example' })).toContain('must be unix:// or tcp://');
  });

  test('decides what a run uses: the embedded server without one, unless a container was asked for by name', async () => {
    const DOCKER_HOST = `unix://${folder}/nobody.sock`;
    for (const env of [{ DOCKER_HOST }, { DOCKER_HOST, MAD_TEST_POSTGRES: 'auto' }, { CI: 'true' }]) {
      const server = await startServer(env, quiet);
      await server.stop();
      expect(server.kind).toBe('embedded');
    }
    await expect(startServer({ DOCKER_HOST, MAD_TEST_POSTGRES: 'container' }, quiet)).rejects.toThrow(
      'MAD_TEST_POSTGRES=container: no Docker engine at',
    );
    await expect(startServer({ MAD_TEST_POSTGRES: 'docker' }, quiet)).rejects.toThrow(
      'MAD_TEST_POSTGRES must be one of auto, container, embedded, not docker',
    );
  });
});
