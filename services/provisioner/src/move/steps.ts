import { loadArchive } from '../backups/load.ts';
import { withSnapshot } from '../backups/snapshot.ts';
import { watched } from '../backups/watched.ts';
import { replacedName, schemaApp, schemaOwner, streamName } from '../domain/names.ts';
import type { StepName } from '../domain/plan.ts';
import { differencesText } from '../domain/schema-difference.ts';
import { appliedIn, asOwnerInside, lookForDrift } from '../drift/look.ts';
import { buildOwnIndexes } from '../indexes/own-indexes.ts';
import { noteResult } from '../operations/lease.ts';
import { PROVISIONING_STEPS, type Step, type Subject } from '../provisioning/steps.ts';
import * as database from '../servers/tenant-database.ts';
import { buildDatabase } from '../servers/template.ts';
import { moveParams } from './move-params.ts';
import { ONLINE_STEPS, stopReceiving, stopSending } from './online-steps.ts';
import { makeMissingPartitions } from './partitions.ts';
import { onEnd, systemOf } from './places.ts';
import {
  beginGivingBack,
  beginMoving,
  giveBack,
  leaveBehind,
  rememberAt,
  switchServer,
  type Leaving,
} from './records.ts';
import { RowsOfDatabase } from './rows.ts';

export const loginsOf = ({ logins }: Subject): string[] => logins.map(({ name }) => name);

/** The steps of moving a tenant to another server. Each may be begun anew after any crash. */
export const MOVE_STEPS = {
  ...ONLINE_STEPS,

  async stop_writes(context, client, subject, held) {
    await context.database.asSystem((tx) => beginMoving(tx, held));
    await PROVISIONING_STEPS.close_writes(context, client, subject);
  },

  async build_target(context, client, subject, held, stop) {
    const { connections, owners } = context;
    const { tenant, server: source } = subject;
    const { database_name: name, schema } = tenant;
    const owner = owners.of(schema);
    const { target_server_id: targetId } = moveParams(held);
    await context.database.asSystem((tx) =>
      rememberAt(tx, held, targetId, [
        { kind: 'database', name },
        ...loginsOf(subject).map((login) => ({ kind: 'role' as const, name: login })),
      ]),
    );
    const applied = await asOwnerInside(connections, source, tenant, (inside) => appliedIn(inside, schema));
    await onEnd(context, client, subject, held, 'target', async ({ client: there, server: target }) => {
      // It drops what has the name there: that must not be the tenant itself.
      if ((await systemOf(there)) === (await systemOf(client))) throw new Error('both names lead to one server');
      await buildDatabase(there, name, applied.at(-1) ?? '', { connections, server: target, schema, owner });
      await makeMissingPartitions(
        context,
        { source: { client, server: source }, target: { client: there, server: target } },
        tenant,
        stop,
      );
    });
  },

  async copy_rows(context, client, subject, held, stop) {
    const { database: db, connections, owners } = context;
    const { tenant, server: source } = subject;
    const { database_name: name, schema, generation } = tenant;
    const role = schemaOwner(schema);
    await onEnd(context, client, subject, held, 'target', async ({ client: there, server: target }) => {
      const [from, to] = await Promise.all([
        connections.migratorLogin(source, name),
        connections.migratorLogin(target, name),
      ]);
      await database.whileConnectable(client, name, from.user, () =>
        database.whileConnectable(there, name, to.user, () =>
          watched(db, held, stop, (progress, signal) => {
            const snapshot = { connections, server: source, login: from, role, schema, owner: owners.of(schema) };
            return withSnapshot({ ...snapshot, generation, signal }, async (rows, guess) => {
              progress.total = guess;
              const manifest = await connections.as(target, to, (inside) =>
                loadArchive(inside, new RowsOfDatabase(rows), {
                  role,
                  signal,
                  onProgress: (bytes) => (progress.done = bytes),
                }),
              );
              const total = manifest.tables.reduce((sum, table) => sum + table.rows, 0);
              await db.asSystem((tx) => noteResult(tx, held, { rows: total, tables: manifest.tables.length }));
            });
          }),
        ),
      );
    });
  },

  async finish_target(context, client, subject, held) {
    const { connections } = context;
    const { tenant, logins } = subject;
    const { database_name: name, schema } = tenant;
    await onEnd(context, client, subject, held, 'target', async ({ client: there, server: target }) => {
      await buildOwnIndexes(context, target, held, name);
      const { differences } = await lookForDrift(context, target, tenant, there);
      if (differences.length > 0)
        throw new Error(`the copy is not what its version makes: ${differencesText(differences)}`);
      // Rows that came by replication were not counted yet, and plans depend on it.
      if (held.kind === 'move_online') {
        await asOwnerInside(connections, target, tenant, (inside) => inside.query('ANALYZE'));
      }
      // Nobody knows the way yet; whoever is told it finds the door open.
      await database.admitLogins(there, name, schemaApp(schema), logins);
      await database.checkWall(there, name, schemaApp(schema), loginsOf(subject));
    });
  },

  async cut_over({ database: db }, client, subject, held) {
    const { tenant } = subject;
    if (tenant.server_id === moveParams(held).target_server_id) return;
    const logins = loginsOf(subject);
    await database.closeConnections(client, tenant.database_name, logins);
    await db.asSystem((tx) => switchServer(tx, held, { database: tenant.database_name, logins }));
  },

  async retire_source(context, client, subject, held) {
    const { database_name: name, schema } = subject.tenant;
    const { source_server_id: sourceId, keep_ms: keepMs } = moveParams(held);
    const online = held.kind === 'move_online';
    let sending = online;
    try {
      if (online) await stopSending(context, client, subject, held);
      sending = false;
      await onEnd(context, client, subject, held, 'source', ({ client: there }) =>
        database.retireDatabase(there, name, replacedName(schema, held.operationId)),
      );
    } catch (error) {
      // The organization works where it is now, and must not wait for the machine it left, which may never come back. A
      // database with a slot is not kept: the slot would keep the server's log.
      const left: Leaving[] = sending
        ? [
            { kind: 'database', name },
            { kind: 'role', name: streamName(schema, held.operationId) },
          ]
        : [{ kind: 'database', name, keepMs }];
      await context.database.asSystem((tx) => leaveBehind(tx, held, sourceId, left, error));
    }
    if (online) await stopReceiving(context, client, subject, held);
  },

  async take_back(context, client, subject, held) {
    const { database: db } = context;
    await db.asSystem((tx) => beginGivingBack(tx, held));
    // One that was lost with its server is restored like any other.
    if (await database.databaseExists(client, subject.tenant.database_name)) {
      await PROVISIONING_STEPS.open_writes(context, client, subject);
      await PROVISIONING_STEPS.open_connections(context, client, subject);
    }
    await db.asSystem((tx) => giveBack(tx, held));
    if (held.kind !== 'move_online') return;
    // The organization works again: what is left of the move may take its time.
    await stopSending(context, client, subject, held);
    try {
      await stopReceiving(context, client, subject, held);
    } catch (error) {
      // The copy was recorded before it was made.
      await db.asSystem((tx) => leaveBehind(tx, held, moveParams(held).target_server_id, [], error));
    }
  },
} satisfies Partial<Record<StepName, Step>>;
