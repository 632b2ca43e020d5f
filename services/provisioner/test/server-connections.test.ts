import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { clientOptions } from '@mad/postgres';
import { errorResponse, openProxy, testCluster } from '@mad/testing';
import pg from 'pg';
import type { ServerRow } from '../src/db/entities/server.ts';
import { causeOf } from '../src/operations/cause.ts';
import { parseMasterKeys } from '../src/secrets/local-keys.ts';
import { sealServerPasswords } from '../src/secrets/server-passwords.ts';
import { ServerConnections } from '../src/servers/server-connections.ts';
import { silent } from './neighbours.ts';

const master = parseMasterKeys(randomBytes(32).toString('base64'));
let admin: pg.Client;
let connections: ServerConnections;
let server: ServerRow;

beforeAll(async () => {
  const cluster = testCluster();
  const { adminUrl, place } = cluster;
  admin = new pg.Client(clientOptions(adminUrl));
  await admin.connect();
  connections = new ServerConnections(master, silent);
  const password = (role: string): string => new URL(cluster.url(role, 'postgres')).password;
  const passwords = { provisioner: password('mad_provisioner_admin'), migrator: password('mad_migrator') };
  const about = { server_id: 'a', name: 'local', ...place };
  server = { ...about, ...(await sealServerPasswords(master, 'local', passwords)) } as ServerRow;
});

afterAll(async () => {
  await connections?.close();
  await admin?.end();
});

type Use = (fn: (client: pg.ClientBase) => Promise<unknown>) => Promise<unknown>;

test.each<[string, () => Use]>([
  ["the pool's", () => (fn) => connections.asAdmin(server, fn)],
  ["one's own", () => (fn) => connections.as(server, connections.adminLogin(server, 'postgres'), fn)],
])('a connection of %s that is lost between two questions fails by the reason it was lost', async (_whose, use) => {
  const failure = await use()(async (client) => {
    const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    const lost = new Promise((resolve) => client.once('error', resolve));
    await admin.query('SELECT pg_terminate_backend($1)', [rows[0]!.pid]);
    await lost;
    // What pg says of a connection it knows is gone comes with the next turn.
    await delay(10);
    await client.query('SELECT 1');
  }).catch((error: unknown) => error);
  expect(failure).toMatchObject({ message: 'terminating connection due to administrator command' });
  expect(causeOf(failure)).toBe('away');
});

test('a connection that is lost in the moment it was made fails its first question, not the process', async () => {
  const proxy = await openProxy(server);
  try {
    const through = { ...server, server_id: 'b', host: '127.0.0.1', port: proxy.port };
    proxy.farewell = errorResponse('57P01', 'terminating connection due to unexpected postmaster exit');
    const failure = await connections.asAdmin(through, (client) => client.query('SELECT 1')).catch((error) => error);
    expect(causeOf(failure)).toBe('away');
    expect((await connections.asAdmin(through, (client) => client.query('SELECT 1'))).rowCount).toBe(1);
  } finally {
    await connections.close();
    await proxy.close();
  }
});
