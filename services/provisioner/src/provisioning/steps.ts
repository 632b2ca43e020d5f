import type { JsonWebKey } from 'node:crypto';
import type { ObjectStore } from '@mad/object-store';
import { fingerprintOf, type Database } from '@mad/postgres';
import type { MigrateDatabaseResponse } from '@mad/proto/tenancy';
import type pg from 'pg';
import type { DataKeyRow, CredentialRow } from '../db/entities/secret.ts';
import type { ServerRow } from '../db/entities/server.ts';
import { TENANT_COLUMNS, type TenantRow } from '../db/entities/tenant.ts';
import { schemaApp, schemaOwner, versionOf } from '../domain/names.ts';
import { differencesText, type Difference } from '../domain/schema-difference.ts';
import { expectedOf, lookForDrift } from '../drift/look.ts';
import type { StepName, TenantKey } from '../domain/plan.ts';
import type { RowOwners } from '../erasure/row-owners.ts';
import { openPassword, unwrapDataKey } from '../secrets/data-keys.ts';
import type { MasterKeys } from '../secrets/master-keys.ts';
import type { References } from '../drift/references.ts';
import type { SchemaOwners } from '../servers/schema-owners.ts';
import type { LoginRole } from '../servers/login-roles.ts';
import type { ServerConnections } from '../servers/server-connections.ts';
import * as database from '../servers/tenant-database.ts';
import { ensureTemplate } from '../servers/template.ts';
import {
  givesWay,
  isCancelRequested,
  noteProgress,
  noteResult,
  readResult,
  remember,
  type Held,
} from '../operations/lease.ts';
import { Cancelled } from '../operations/stops.ts';
import { claimStock, forgetClaim, moveIn } from '../stock/claim.ts';
import { closeWrites, namesOf, openWrites, requireDatabase } from './opening.ts';

/** What steps work with. */
export interface StepContext {
  database: Database;
  master: MasterKeys;
  connections: ServerConnections;
  owners: SchemaOwners;
  references: References;
  /** How long sessions under a login that is no longer in use may go on, in milliseconds. */
  rotateGraceMs: number;
  objects: ObjectStore;
  rowOwners: RowOwners;
  /** Provisioner's own key, which signs the records of erasures. */
  signingJwk: JsonWebKey;
}

/** One tenant as the steps see it. */
export interface Subject {
  tenant: TenantRow;
  server: ServerRow;
  logins: (LoginRole & { active: boolean })[];
}

/** What a step found out, kept when the operation is done. */
export interface Findings {
  schemaVersion?: string;
  fingerprint?: string;
  applied?: string[];
}

/**
 * What a step does, given the provisioner's connection to the tenant's server. One that takes long ends by the reason of
 * `stop` when that is aborted.
 */
export type Step = (
  context: StepContext,
  client: pg.ClientBase,
  subject: Subject,
  held: Held,
  stop: AbortSignal,
) => Promise<Findings | void>;

/** The tenant, its server and its logins' passwords. */
export async function loadSubject(
  { database: db, master }: Pick<StepContext, 'database' | 'master'>,
  { orgId, schema }: TenantKey,
): Promise<Subject> {
  const { tenant, server, credentials } = await db.asSystem(async (tx) => {
    const [tenant] = await tx.query<TenantRow>(
      `SELECT ${TENANT_COLUMNS} FROM provisioner.tenants WHERE org_id = $1 AND schema = $2`,
      [orgId, schema],
    );
    if (tenant === undefined) throw new Error(`no tenant ${schema} of ${orgId}`);
    const [server] = await tx.query<ServerRow>(
      `SELECT server_id, name, host, port, sslmode, region, connection_budget, max_tenants, draining,
         provisioner_secret, migrator_secret, master_key_version, created_at, updated_at
       FROM provisioner.database_servers WHERE server_id = $1`,
      [tenant.server_id],
    );
    const credentials = await tx.query<CredentialRow & DataKeyRow>(
      `SELECT c.role_name, c.secret, c.active, k.org_id, k.version, k.wrapped_key, k.master_key_version
       FROM provisioner.tenant_credentials c
       JOIN provisioner.data_keys k ON k.org_id = c.org_id AND k.version = c.data_key_version
       WHERE c.org_id = $1 AND c.schema = $2 ORDER BY c.slot`,
      [orgId, schema],
    );
    return { tenant, server: server!, credentials };
  });
  const logins = await Promise.all(
    credentials.map(async (row) => ({
      name: row.role_name,
      password: openPassword(await unwrapDataKey(master, row), schema, row.role_name, row.secret),
      active: row.active,
    })),
  );
  return { tenant, server, logins };
}

/** The steps of making, shutting and migrating tenants. Each may be begun anew after any crash. */
export const PROVISIONING_STEPS = {
  async create_database({ database: db, connections, owners }, client, { tenant, server }, held) {
    const { template, version } = await ensureTemplate(client, {
      connections,
      server,
      schema: tenant.schema,
      owner: owners.of(tenant.schema),
      remember: (name) => db.asSystem((tx) => remember(tx, held, [{ kind: 'template', name }])),
      keep: async (name) => {
        await db.asSystem((tx) =>
          tx.execute(
            `DELETE FROM provisioner.cleanup_records
             WHERE server_id = $1 AND object_kind = 'template' AND object_name = $2`,
            [server.server_id, name],
          ),
        );
      },
    });
    const stocked = await claimStock(db, tenant, template);
    const there = stocked !== undefined && (await moveIn(client, stocked, tenant.database_name));
    if (!there) await database.createDatabase(client, tenant.database_name, template);
    // Noted at once: whoever goes on after a crash begins at a later step and does not see the template.
    await db.asSystem(async (tx) => {
      await tx.execute('UPDATE provisioner.tenants SET schema_version = $3 WHERE org_id = $1 AND schema = $2', [
        tenant.org_id,
        tenant.schema,
        version,
      ]);
      await forgetClaim(tx, tenant);
    });
    return { schemaVersion: version };
  },

  async admit_logins(_context, client, { tenant, logins }) {
    await database.admitLogins(client, tenant.database_name, schemaApp(tenant.schema), logins);
  },

  async verify(_context, client, subject) {
    const { database_name: name, schema } = subject.tenant;
    await database.checkWall(client, name, schemaApp(schema), namesOf(subject));
  },

  async close_connections(_context, client, subject) {
    await database.closeConnections(client, subject.tenant.database_name, namesOf(subject));
  },

  async open_connections(_context, client, subject) {
    await requireDatabase(client, subject);
    await database.openConnections(client, subject.tenant.database_name, namesOf(subject));
  },

  async close_writes({ connections }, client, subject) {
    await closeWrites(connections, client, subject);
  },

  async open_writes({ connections }, client, subject) {
    await openWrites(connections, client, subject);
  },

  async migrate(context, client, { tenant, server }, held, stop) {
    const { database: db, connections, owners } = context;
    const { schema } = tenant;
    const known = await owners.of(schema).migrations();
    const { version = versionOf(known), from: looked } = held.params as MigrateParams;
    const from = looked ?? (await versionBefore(context, client, server, tenant, held));
    const login = await connections.migratorLogin(server, tenant.database_name);
    const note = (reached: string): Promise<unknown> =>
      db.asSystem((tx) =>
        tx.execute('UPDATE provisioner.tenants SET schema_version = $3 WHERE org_id = $1 AND schema = $2', [
          tenant.org_id,
          schema,
          reached,
        ]),
      );
    let between = '';
    const to = (target: string): Promise<MigrateDatabaseResponse> =>
      owners.of(schema).migrate(server, login, schemaOwner(schema), target, async ({ changed, total }, reached) => {
        between = reached;
        stop.throwIfAborted();
        if (await isCancelRequested(db, held)) throw new Cancelled('its end was asked for');
        await noteProgress(db, held, { done: Number(changed), total: Number(total), unit: 'rows' });
      });
    const done = await database.whileConnectable(client, tenant.database_name, login.user, async () => {
      try {
        return await to(version);
      } catch (error) {
        // Whoever goes on does so behind the rows that are changed.
        stop.throwIfAborted();
        if (error instanceof Cancelled && (await givesWay(db, held))) {
          await note(between);
          throw error;
        }
        // Those that went well before the one that failed are taken back: the database is at one version or the other.
        await to(from).catch((failure: unknown) => {
          stop.throwIfAborted();
          throw new Error(`${textOf(error)}; and the way back failed: ${textOf(failure)}`, { cause: error });
        });
        throw error;
      }
    });
    // At once: it is the database's version, whatever comes after.
    await note(done.version);
    const reached = known.findIndex(({ name }) => name === done.version) + 1;
    const { expected } = await expectedOf(context, server, held, reached, client);
    // The owner has read the catalog already: it is read again only to name what differs.
    if (fingerprintOf(expected) !== done.fingerprint) {
      const { differences } = await lookForDrift(context, server, tenant, client);
      if (differences.length > 0) throw drifted(differences);
    }
    return { schemaVersion: done.version, fingerprint: done.fingerprint, applied: done.applied };
  },
} satisfies Partial<Record<StepName, Step>>;

/** What an operation that migrates is told. */
interface MigrateParams {
  /** Where to; without it, the newest. */
  version?: string;
  /** Where from, when a rollout has looked already. */
  from?: string;
}

/**
 * Where the database is now, or was before an earlier run began: one that is not what its version makes is not migrated, unless that run made it
 * so, because a migration that stands alone may have left a part of itself.
 */
async function versionBefore(
  context: StepContext,
  client: pg.ClientBase,
  server: ServerRow,
  tenant: TenantRow,
  held: Held,
): Promise<string> {
  const { database: db } = context;
  const { from } = (await readResult(db, held)) as { from?: string };
  if (from !== undefined) return from;
  const { version, differences } = await lookForDrift(context, server, tenant, client);
  if (differences.length > 0) throw drifted(differences);
  await db.asSystem((tx) => noteResult(tx, held, { from: version }));
  return version;
}

const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

function drifted(differences: readonly Difference[]): Error {
  return new Error(`the database is not what its version makes: ${differencesText(differences)}`);
}
