import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from '@jest/globals';
import { testCluster } from '@mad/testing';
import type pg from 'pg';
import { clientOptions, withClient } from '../src/index.ts';

const config = () => clientOptions(testCluster().adminUrl);

/** Ends a session as a server that goes down does, and waits until its client has heard of it. */
async function lose(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
  const lost = new Promise((resolve) => client.once('end', resolve));
  await withClient(config(), (other) => other.query('SELECT pg_terminate_backend($1)', [rows[0]!.pid]));
  await lost;
  await delay(10);
}

test('a connection that is lost while nobody asks ends the next statement, by the reason it was lost, and not the process', async () => {
  const failure = await withClient(config(), async (client) => {
    await lose(client);
    await client.query('SELECT 1');
  }).catch((error: unknown) => error);
  expect(failure).toMatchObject({ message: 'terminating connection due to administrator command' });
});

test('one that is lost after the last statement fails nothing', async () => {
  expect(
    await withClient(config(), async (client) => {
      await lose(client);
      return 'done';
    }),
  ).toBe('done');
});
