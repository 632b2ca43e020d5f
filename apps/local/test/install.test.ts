import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { startEmbeddedPostgres, type EmbeddedPostgres } from '@mad/embedded-postgres';
import { clientOptions } from '@mad/postgres';
import { ConfigError } from '@mad/process';
import pg from 'pg';
import { writeComposeSecrets } from '../src/compose-secrets.ts';
import type { Environment } from '../src/environment.ts';
import { install, readInstallConfig } from '../src/install.ts';

const SLOW = 120_000;
const COMPOSE = fileURLToPath(new URL('../../../docker-compose.yml', import.meta.url));
const EMAIL = 'first@mad.example';
const home = await mkdtemp(join(tmpdir(), 'mad-install-'));
const secrets = join(home, 'deploy', 'secrets');

let written: string[];

beforeAll(async () => {
  written = await writeComposeSecrets(secrets);
});

afterAll(() => rm(home, { recursive: true, force: true }));

/** The settings that name a secret's file, as the containers get them, by setting. */
function secretSettings(): Environment {
  return Object.fromEntries(written.map((name) => [`${name.toUpperCase()}_FILE`, join(secrets, name)]));
}

describe('the secrets of a system in containers', () => {
  test('are one file each, in a folder only its owner may enter', async () => {
    expect((await stat(secrets)).mode & 0o777).toBe(0o700);
    expect((await readdir(secrets)).filter((name) => name !== '.gitignore').toSorted()).toEqual(written.toSorted());
    // Containers read them one by one, as users of their own.
    for (const name of written) expect((await stat(join(secrets, name))).mode & 0o777).toBe(0o444);
    expect(await readFile(join(secrets, '.gitignore'), 'utf8')).toBe('*\n');
  });

  test('are those that docker-compose.yml names', async () => {
    const compose = await readFile(COMPOSE, 'utf8');
    const named = [...compose.matchAll(/\/secrets\}\/([a-z0-9_]+)/g)].map(([, name]) => name!);
    expect(named.toSorted()).toEqual(written.toSorted());
  });

  test('are not made twice, and differ from system to system', async () => {
    const name = join(secrets, 'provisioner_master_key');
    const before = await readFile(name, 'utf8');
    expect(await writeComposeSecrets(secrets)).toEqual([]);
    expect(await readFile(name, 'utf8')).toBe(before);

    // A folder that stands there empty is taken.
    const other = join(home, 'other');
    await mkdir(other);
    const others = await writeComposeSecrets(other);
    expect(others).toEqual(written);
    for (const file of others) {
      expect([file, await readFile(join(other, file), 'utf8')]).not.toEqual([
        file,
        await readFile(join(secrets, file), 'utf8'),
      ]);
    }
  });

  test('waive TLS by name: nothing beyond loopback is in clear by accident', async () => {
    for (const [name, file] of Object.entries(secretSettings())) {
      const text = await readFile(file, 'utf8');
      for (const [url] of text.matchAll(/postgres:\/\/[^"\s]+/g)) {
        expect([name, new URL(url).searchParams.get('sslmode')]).toEqual([name, 'disable']);
      }
    }
    const servers = JSON.parse(await readFile(join(secrets, 'provisioner_servers'), 'utf8')) as { sslmode: string }[];
    expect(servers.map(({ sslmode }) => sslmode)).toEqual(['disable', 'disable']);
  });
});

describe('the settings of install', () => {
  test('are read from the files of the secrets', () => {
    const config = readInstallConfig({ ...secretSettings(), IDENTITY_ADMIN_EMAIL: EMAIL });
    expect(new URL(config.migrateUrl).username).toBe('mad_migrator');
    expect(new URL(config.services.catalog.systemUrl).username).toBe('mad_catalog_system');
    expect(config.servers.map(({ name }) => name)).toEqual(['postgres-tenants-1', 'postgres-tenants-2']);
    expect(Object.keys(config.tenantAdminUrls)).toEqual(['postgres-tenants-1', 'postgres-tenants-2']);
  });

  test('are refused all at once, each by its name and without its value', () => {
    const problems = (env: Environment): readonly string[] => {
      try {
        readInstallConfig(env);
        return [];
      } catch (error) {
        if (error instanceof ConfigError) return error.problems;
        throw error;
      }
    };
    expect(problems({})).toEqual(
      expect.arrayContaining(
        ['INSTALL_ADMIN_URL', 'INSTALL_MIGRATE_URL', 'INSTALL_TENANT_ADMIN_URLS', 'PROVISIONER_SERVERS'].map(
          (name) => `${name}: is required`,
        ),
      ),
    );
    const good: Environment = { ...secretSettings(), IDENTITY_ADMIN_EMAIL: EMAIL };
    const without = (env: Environment, name: string): Environment =>
      Object.fromEntries(Object.entries(env).filter(([one]) => one !== name));
    const tenants = without(good, 'INSTALL_TENANT_ADMIN_URLS_FILE');
    expect(problems({ ...tenants, INSTALL_TENANT_ADMIN_URLS: '{"postgres-tenants-1":"postgres://a:b@c/d"}' })).toEqual([
      'INSTALL_TENANT_ADMIN_URLS: has none for the server postgres-tenants-2 of PROVISIONER_SERVERS',
    ]);
    expect(problems({ ...tenants, INSTALL_TENANT_ADMIN_URLS: '{"postgres-tenants-1":"secret word"}' })).toEqual([
      'INSTALL_TENANT_ADMIN_URLS: the one of postgres-tenants-1 must be a URL',
    ]);
    expect(
      problems({ ...without(good, 'IDENTITY_ADMIN_PASSWORD_FILE'), IDENTITY_ADMIN_PASSWORD: 'short-one' }),
    ).toEqual(['IDENTITY_ADMIN_PASSWORD: must have at least 12 characters']);
  });
});

describe('install', () => {
  const password = () => randomBytes(18).toString('base64url');
  const administrator = { email: EMAIL, password: password() };
  let metadata: EmbeddedPostgres;
  let tenants: EmbeddedPostgres;
  let env: Environment;

  const login = (server: EmbeddedPostgres, user: string, database: string, secret = password()): string => {
    const url = new URL(server.adminUrl);
    url.username = user;
    url.password = secret;
    url.pathname = `/${database}`;
    return url.href;
  };
  /** What one statement answers under a login. */
  const ask = async (url: string, sql: string): Promise<unknown[]> => {
    const client = new pg.Client(clientOptions(url));
    await client.connect();
    try {
      return (await client.query<Record<string, unknown>>(sql)).rows.map((row) => Object.values(row)[0]);
    } finally {
      await client.end();
    }
  };
  const run = () => install(readInstallConfig(env), () => undefined);

  beforeAll(async () => {
    const start = (name: string) => startEmbeddedPostgres({ dataDir: join(home, name), settings: { fsync: 'off' } });
    [metadata, tenants] = await Promise.all([start('metadata'), start('tenants')]);
    const services = ['identity', 'catalog', 'provisioner'].flatMap((service) => [
      [`${service.toUpperCase()}_DATABASE_URL`, login(metadata, `mad_${service}`, 'mad_metadata')],
      [`${service.toUpperCase()}_SYSTEM_URL`, login(metadata, `mad_${service}_system`, 'mad_metadata')],
    ]);
    const server = { name: 'tenants-1', host: '127.0.0.1', port: tenants.port };
    env = {
      ...Object.fromEntries(services),
      PROVISIONER_SERVERS: JSON.stringify([
        { ...server, provisioner_password: password(), migrator_password: password() },
      ]),
      INSTALL_ADMIN_URL: metadata.adminUrl,
      INSTALL_TENANT_ADMIN_URLS: JSON.stringify({ 'tenants-1': tenants.adminUrl }),
      INSTALL_MIGRATE_URL: login(metadata, 'mad_migrator', 'mad_metadata'),
      IDENTITY_ADMIN_EMAIL: administrator.email,
      IDENTITY_ADMIN_PASSWORD: administrator.password,
    };
  }, SLOW);

  afterAll(async () => {
    await metadata?.stop();
    await tenants?.stop();
  }, SLOW);

  test(
    'prepares servers that hold nothing, and changes nothing when repeated',
    async () => {
      const first = await run();
      expect(first.administrator).toBe(true);
      for (const ran of Object.values(first.migrations)) expect(ran.length).toBeGreaterThan(0);

      expect(await run()).toEqual({
        migrations: { identity: [], catalog: [], provisioner: [], reporting: [] },
        administrator: false,
      });
      const administrators = `SELECT email FROM identity.users WHERE role = 'super_admin'`;
      expect(await ask(env['IDENTITY_SYSTEM_URL']!, administrators)).toEqual([EMAIL]);
    },
    SLOW,
  );

  test('lets the services in with the passwords of their URLs, each to its own', async () => {
    for (const service of ['identity', 'catalog', 'provisioner']) {
      for (const kind of ['DATABASE', 'SYSTEM']) {
        expect(await ask(env[`${service.toUpperCase()}_${kind}_URL`]!, 'SELECT current_schema')).toEqual([service]);
      }
    }
    const foreign = ask(env['CATALOG_SYSTEM_URL']!, 'SELECT count(*) FROM identity.users');
    await expect(foreign).rejects.toMatchObject({ code: '42501' });
  });

  test('gives the provisioner its login on the tenants’ server, and no other', async () => {
    const [server] = JSON.parse(env['PROVISIONER_SERVERS']!) as Record<string, string>[];
    const own = login(tenants, 'mad_provisioner_admin', 'postgres', server!['provisioner_password']);
    const rights = 'SELECT rolcreatedb AND rolcreaterole AND NOT rolsuper FROM pg_roles WHERE rolname = current_user';
    expect(await ask(own, rights)).toEqual([true]);
    expect(await ask(tenants.adminUrl, `SELECT rolname FROM pg_roles WHERE rolname = 'mad_identity'`)).toEqual([]);
  });

  test(
    'sets new passwords when the URLs have new ones',
    async () => {
      const old = env['CATALOG_DATABASE_URL']!;
      env = { ...env, CATALOG_DATABASE_URL: login(metadata, 'mad_catalog', 'mad_metadata') };
      await run();
      expect(await ask(env['CATALOG_DATABASE_URL']!, 'SELECT 1')).toEqual([1]);
      await expect(ask(old, 'SELECT 1')).rejects.toMatchObject({ code: '28P01' });
    },
    SLOW,
  );
});
