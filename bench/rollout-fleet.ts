import { createClient, type Client } from '@connectrpc/connect';
import { uuidv7 } from '@mad/process';
import { RolloutService, RolloutState, type Rollout, type Route } from '@mad/proto/provisioner';
import { resultsMigrations } from '@mad/results';
import type pg from 'pg';
import type { BenchFleet } from './tenant-fleet.ts';
import { SCHEMA } from './system.ts';

/** Tenants at once, on both sides: what a rollout does unless told otherwise. */
export const AT_ONCE = 4;

/** The fleet's newest migration, and the record of it. */
export const newest = resultsMigrations.at(-1)!;

/** Runs `fn` in every tenant's database as the superuser, `atOnce` of them at a time; each on a connection of its own. */
export async function inEach(
  { system }: BenchFleet,
  routes: readonly Route[],
  atOnce: number,
  fn: (client: pg.Client) => Promise<unknown>,
): Promise<void> {
  const rest = [...routes];
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      for (let route = rest.pop(); route !== undefined; route = rest.pop()) {
        const client = await system.admin(route.database);
        try {
          await fn(client);
        } finally {
          await client.end();
        }
      }
    }),
  );
}

/** One migration by hand, as its file says it, and its record: up, or down. */
export async function byHand(client: pg.Client, way: 'up' | 'down'): Promise<void> {
  const record =
    way === 'up'
      ? `INSERT INTO ${SCHEMA}.migrations ("timestamp", name) VALUES (${newest.time}, '${newest.migrationName}')`
      : `DELETE FROM ${SCHEMA}.migrations WHERE name = '${newest.migrationName}'`;
  await client.query(`BEGIN; SET LOCAL ROLE mad_results_owner; SET LOCAL search_path = ${SCHEMA}, public;
    ${newest.sql[way]}; ${record}; COMMIT`);
}

/** A rollout of the schema from asking to its end. Throws unless everybody is at the version then. */
export async function rollOut(client: Client<typeof RolloutService>): Promise<Rollout> {
  const { rollout } = await client.startRollout({ schema: SCHEMA, requestId: uuidv7() });
  let last: Rollout | undefined;
  for await (const { rollout: now } of client.watchRollout({ rolloutId: rollout!.rolloutId })) last = now;
  if (last?.state !== RolloutState.SUCCEEDED || last.counts!.succeeded !== last.counts!.total) {
    throw new Error(
      `the rollout is ${RolloutState[last?.state ?? 0]}: ${last?.reason}, ${last?.counts?.failed} failed`,
    );
  }
  return last;
}

/** From the rollout's own clock: a watcher sees its end a quarter of a second later. */
export function took({ createTime, endTime }: Rollout): number {
  const ms = (time: NonNullable<Rollout['endTime']>): number => Number(time.seconds) * 1_000 + time.nanos / 1e6;
  return ms(endTime!) - ms(createTime!);
}

/** The service of rollouts, as the platform's administrator. */
export async function rollouts({ system }: BenchFleet): Promise<Client<typeof RolloutService>> {
  return createClient(RolloutService, await system.platform('provisioner'));
}
