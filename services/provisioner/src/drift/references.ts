import { createHash } from 'node:crypto';
import { schemaObjects, type Database, type SchemaObject } from '@mad/postgres';
import { MINUTE_MS } from '@mad/process';
import type pg from 'pg';
import type { SchemaReferenceRow } from '../db/entities/tenant-index.ts';
import type { ServerRow } from '../db/entities/server.ts';
import { migrationsText, referenceName, versionOf, type ListedMigration } from '../domain/names.ts';
import { NOBODY } from '../domain/plan.ts';
import type { SchemaOwners } from '../servers/schema-owners.ts';
import type { ServerConnections } from '../servers/server-connections.ts';
import { buildDatabase } from '../servers/template.ts';
import { rememberReference, forgetReference } from './reference-records.ts';
import { dropDatabase, lockByName, unlockByName } from '../servers/tenant-database.ts';

/** As long as the migrations take; another process may be at one of the schema's. */
const LOCK_WAIT_MS = 5 * MINUTE_MS;

export interface ReferencesOptions {
  database: Database;
  connections: ServerConnections;
  owners: SchemaOwners;
}

/**
 * What a list of migrations makes: read from a database that was made by it and by nothing else, once on each server for
 * each release of Postgres, because catalogs of different releases say the same in other words.
 */
export class References {
  readonly #options: ReferencesOptions;
  readonly #known = new Map<string, Promise<SchemaObject[]>>();

  constructor(options: ReferencesOptions) {
    this.#options = options;
  }

  /** `client`: the provisioner's connection to the server, when the caller has one already. */
  of(
    server: ServerRow,
    schema: string,
    migrations: readonly ListedMigration[],
    client?: pg.ClientBase,
  ): Promise<SchemaObject[]> {
    const digest = createHash('sha256').update(migrationsText(migrations)).digest('hex');
    const key = `${server.server_id} ${schema} ${digest}`;
    let known = this.#known.get(key);
    if (known === undefined) {
      const find = (admin: pg.ClientBase): Promise<SchemaObject[]> =>
        this.#find(admin, server, schema, digest, versionOf(migrations));
      known = client === undefined ? this.#options.connections.asAdmin(server, find) : find(client);
      this.#known.set(key, known);
      known.catch(() => this.#known.delete(key));
    }
    return known;
  }

  async #find(
    client: pg.ClientBase,
    server: ServerRow,
    schema: string,
    digest: string,
    version: string,
  ): Promise<SchemaObject[]> {
    const { rows } = await client.query<{ release: number }>(
      `SELECT current_setting('server_version_num')::int AS release`,
    );
    const key = [server.server_id, schema, digest, rows[0]!.release];
    const stored = async (): Promise<SchemaObject[] | undefined> => {
      const [row] = await this.#options.database.asSystem((tx) =>
        tx.query<Pick<SchemaReferenceRow, 'objects'>>(
          `SELECT objects FROM provisioner.schema_references
           WHERE server_id = $1 AND schema = $2 AND digest = $3 AND server_version = $4`,
          key,
        ),
      );
      return row?.objects;
    };
    const before = await stored();
    if (before !== undefined) return before;
    const name = referenceName(schema, digest);
    // Cleaning up takes this lock too: nobody removes what is being made.
    const lock = `mad.tenant.${schema}.${NOBODY}`;
    await lockByName(client, lock, LOCK_WAIT_MS);
    try {
      const meanwhile = await stored();
      if (meanwhile !== undefined) return meanwhile;
      const objects = await this.#build(client, server, schema, name, version);
      await this.#options.database.asSystem((tx) =>
        tx.execute(
          `INSERT INTO provisioner.schema_references (server_id, schema, digest, server_version, objects)
           VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
          [...key, JSON.stringify(objects)],
        ),
      );
      return objects;
    } finally {
      await unlockByName(client, lock);
    }
  }

  async #build(
    client: pg.ClientBase,
    server: ServerRow,
    schema: string,
    name: string,
    version: string,
  ): Promise<SchemaObject[]> {
    const { database, connections, owners } = this.#options;
    const operationId = await rememberReference(database, { server, schema, name });
    let failure = '';
    try {
      await buildDatabase(client, name, version, { connections, server, schema, owner: owners.of(schema) });
      return await connections.as(server, connections.adminLogin(server, name), (inside) =>
        schemaObjects(inside, schema),
      );
    } catch (error) {
      failure = error instanceof Error ? error.message : String(error);
      throw error;
    } finally {
      await dropDatabase(client, name);
      await forgetReference(database, operationId, failure);
    }
  }
}
