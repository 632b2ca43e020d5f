import { sleep } from '@mad/process';
import pg from 'pg';
import { prepareSession } from '../backups/snapshot.ts';
import { watched } from '../backups/watched.ts';
import { schemaOwner, streamName } from '../domain/names.ts';
import type { StepName } from '../domain/plan.ts';
import { untilGivenUp } from '../drift/build-index.ts';
import { noteResult, readResult, type Held } from '../operations/lease.ts';
import type { Step, StepContext, Subject } from '../provisioning/steps.ts';
import { closeConnections, databaseExists } from '../servers/tenant-database.ts';
import { compareTables, copySequences } from './compare.ts';
import { makeMissingPartitions } from './partitions.ts';
import { onEnd, type Place } from './places.ts';
import { beginMoving } from './records.ts';
import * as replication from './replication.ts';

/** So few bytes behind, the copy is up to date within moments. */
const NEAR_BYTES = 256 * 1024;
const POLL_MS = 100;
const DRAIN_POLL_MS = 5;
/** The copy has this long for what was committed before the fence; then the move is given up. */
const DRAIN_MS = 30_000;

/** The steps of a move during which everybody works; the others are those of any move. */
export const ONLINE_STEPS = {
  async start_replication(context, client, subject, held, stop) {
    const stream = streamOf(held, subject);
    const { schema } = held;
    // What an attempt before left.
    await stopSending(context, client, subject, held);
    await stopReceiving(context, client, subject, held);
    await bothEnds(context, client, subject, held, async (ends) => {
      const { tables } = await makeMissingPartitions(context, ends, subject.tenant, stop);
      // Partitions come by way of their parents, those that are made meanwhile as well.
      const names = [...new Set(tables.map(({ name, partitionOf }) => partitionOf || name))];
      await context.connections.as(ends.source.server, inDatabase(context, ends.source, stream), async (inside) => {
        await inside.query(`SET ROLE ${pg.escapeIdentifier(schemaOwner(schema))}`);
        const keyless = await replication.tablesWithoutKey(inside, schema);
        await context.database.asSystem((tx) => noteResult(tx, held, { whole_rows: keyless }));
        await replication.identify(inside, schema, keyless, 'FULL');
        await inside.query('RESET ROLE');
        const password = await replication.publish(inside, stream, names);
        await context.connections.as(ends.target.server, inDatabase(context, ends.target, stream), (there) =>
          replication.subscribe(there, stream, { tables: names, source: ends.source.server, password }),
        );
      });
    });
  },

  async catch_up(context, client, subject, held, stop) {
    const stream = streamOf(held, subject);
    await bothEnds(context, client, subject, held, (ends) =>
      watched(context.database, held, stop, (progress, signal) =>
        inside(context, ends, stream, async (from, to) => {
          for (;;) {
            signal.throwIfAborted();
            await makeMissingPartitions(context, ends, subject.tenant, signal);
            const { ready, tables } = await replication.copied(to, stream.name);
            const behind = await replication.behind(ends.source.client, stream.name, await replication.endOfLog(from));
            Object.assign(progress, await sizes(ends, stream.database));
            if (ready === tables && behind !== undefined && behind <= NEAR_BYTES) return;
            await sleep(POLL_MS, signal);
          }
        }),
      ),
    );
  },

  async fence_source({ database }, client, subject, held) {
    await database.asSystem((tx) => beginMoving(tx, held));
    await closeConnections(
      client,
      subject.tenant.database_name,
      subject.logins.map(({ name }) => name),
    );
  },

  async drain(context, client, subject, held, stop) {
    const stream = streamOf(held, subject);
    const { schema } = held;
    await bothEnds(context, client, subject, held, (ends) =>
      // Nobody writes meanwhile, and tables take as long as they are large: whoever gives the move up is heard.
      watched(context.database, held, stop, async (_progress, signal) => {
        const listed = await makeMissingPartitions(context, ends, subject.tenant, signal);
        await inside(context, ends, stream, async (from, to) => {
          const { drained = false } = (await readResult(context.database, held)) as { drained?: boolean };
          if (!drained) await drain(ends.source.client, from, stream.name, signal);
          await context.database.asSystem((tx) => noteResult(tx, held, { drained: true }));
          await replication.unsubscribe(to, stream);
          for (const one of [from, to]) await prepareSession(one, schemaOwner(schema));
          await copySequences(from, to, schema, listed.sequences);
          const { rows } = await untilGivenUp(from, signal, () =>
            untilGivenUp(to, signal, () => compareTables(from, to, schema, listed)),
          );
          await context.database.asSystem((tx) => noteResult(tx, held, { rows, tables: listed.tables.length }));
        });
      }),
    );
  },
} satisfies Partial<Record<StepName, Step>>;

/** The source sends no more: no slot keeps its log, its tables send what they sent before. Repeatable. */
export async function stopSending(
  context: StepContext,
  client: pg.ClientBase,
  subject: Subject,
  held: Held,
): Promise<void> {
  const stream = streamOf(held, subject);
  const { schema } = held;
  const { whole_rows: keyless = [] } = (await readResult(context.database, held)) as { whole_rows?: string[] };
  await onEnd(context, client, subject, held, 'source', async (source) => {
    if (!(await databaseExists(source.client, stream.database))) return;
    await context.connections.as(source.server, inDatabase(context, source, stream), async (from) => {
      await replication.unpublish(from, stream);
      await from.query(`SET ROLE ${pg.escapeIdentifier(schemaOwner(schema))}`);
      await replication.identify(from, schema, keyless, 'DEFAULT');
    });
  });
}

/** The target takes no more. The source is not asked. Repeatable. */
export async function stopReceiving(
  context: StepContext,
  client: pg.ClientBase,
  subject: Subject,
  held: Held,
): Promise<void> {
  const stream = streamOf(held, subject);
  await onEnd(context, client, subject, held, 'target', async (target) => {
    if (!(await databaseExists(target.client, stream.database))) return;
    await context.connections.as(target.server, inDatabase(context, target, stream), (to) =>
      replication.unsubscribe(to, stream),
    );
  });
}

async function drain(client: pg.ClientBase, from: pg.ClientBase, name: string, stop: AbortSignal): Promise<void> {
  const end = await replication.endOfLog(from);
  for (const until = performance.now() + DRAIN_MS; ;) {
    const behind = await replication.behind(client, name, end);
    if (behind === 0) return;
    if (performance.now() > until)
      throw new Error(`the copy is ${behind ?? 'unknown'} bytes behind and does not catch up`);
    await sleep(DRAIN_POLL_MS, stop);
  }
}

const streamOf = ({ operationId, schema }: Held, { tenant }: Subject): replication.Stream => ({
  schema,
  database: tenant.database_name,
  name: streamName(schema, operationId),
});

const inDatabase = ({ connections }: StepContext, { server }: Place, { database }: replication.Stream) =>
  connections.adminLogin(server, database);

interface Ends {
  source: Place;
  target: Place;
}

/** Runs `fn` with the provisioner's connections to both servers. */
function bothEnds<T>(
  context: StepContext,
  client: pg.ClientBase,
  subject: Subject,
  held: Held,
  fn: (ends: Ends) => Promise<T>,
): Promise<T> {
  return onEnd(context, client, subject, held, 'source', (source) =>
    onEnd(context, client, subject, held, 'target', (target) => fn({ source, target })),
  );
}

/** Runs `fn` inside both databases, as the provisioner. */
function inside<T>(
  context: StepContext,
  { source, target }: Ends,
  stream: replication.Stream,
  fn: (from: pg.Client, to: pg.Client) => Promise<T>,
): Promise<T> {
  const { connections } = context;
  return connections.as(source.server, inDatabase(context, source, stream), (from) =>
    connections.as(target.server, inDatabase(context, target, stream), (to) => fn(from, to)),
  );
}

async function sizes({ source, target }: Ends, database: string): Promise<{ done: number; total: number }> {
  const [total, done] = await Promise.all(
    [source, target].map(async ({ client }) => {
      const { rows } = await client.query<{ bytes: number }>('SELECT pg_database_size($1)::float8 AS bytes', [
        database,
      ]);
      return rows[0]!.bytes;
    }),
  );
  return { done: Math.min(done!, total!), total: total! };
}
