import type { JsonObject } from '@bufbuild/protobuf';
import type { Database } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import type { ServerRow } from '../db/entities/server.ts';
import { NOBODY } from '../domain/plan.ts';

/** A database that is about to be made for a moment. */
export interface ReferenceDatabase {
  server: Pick<ServerRow, 'server_id' | 'name'>;
  schema: string;
  name: string;
}

/**
 * Notes it as what a failed operation left, before it is made: that is what it is, unless whoever makes it lives to say
 * otherwise. Returns the operation.
 */
export async function rememberReference(
  database: Database,
  { server, schema, name }: ReferenceDatabase,
): Promise<string> {
  const operationId = uuidv7();
  const params: JsonObject = { server: server.name, database: name };
  await database.asSystem(async (tx) => {
    await tx.execute(
      `INSERT INTO provisioner.operations (operation_id, org_id, schema, kind, state, error, ended_at, params)
       VALUES ($1, $2, $3, 'reference', 'failed', 'its process ended before it had', now(), $4)`,
      [operationId, NOBODY, schema, JSON.stringify(params)],
    );
    await tx.execute(
      `INSERT INTO provisioner.cleanup_records (cleanup_id, operation_id, org_id, schema, server_id, object_kind, object_name)
       VALUES (gen_random_uuid(), $1, $2, $3, $4, 'database', $5)
       ON CONFLICT (server_id, object_kind, object_name) DO UPDATE SET operation_id = excluded.operation_id`,
      [operationId, NOBODY, schema, server.server_id, name],
    );
  });
  return operationId;
}

/** Nothing is left of it any more. `error`: why it could not be made; empty where it was. */
export async function forgetReference(database: Database, operationId: string, error: string): Promise<void> {
  await database.asSystem(async (tx) => {
    await tx.execute('DELETE FROM provisioner.cleanup_records WHERE operation_id = $1', [operationId]);
    await tx.execute(
      `UPDATE provisioner.operations SET state = CASE WHEN $2 = '' THEN 'succeeded' ELSE 'failed' END, error = $2,
         ended_at = now(), updated_at = now()
       WHERE operation_id = $1`,
      [operationId, error],
    );
  });
}
