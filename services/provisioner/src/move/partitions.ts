import type { ListTablesResponse } from '@mad/proto/tenancy';
import type { TenantRow } from '../db/entities/tenant.ts';
import { schemaOwner } from '../domain/names.ts';
import type { StepContext } from '../provisioning/steps.ts';
import { whileConnectable } from '../servers/tenant-database.ts';
import type { Place } from './places.ts';

/** Makes the partitions the copy lacks: schemas make them as they go. Returns what the source's database consists of. */
export async function makeMissingPartitions(
  { connections, owners }: StepContext,
  { source, target }: { source: Place; target: Place },
  { database_name: name, schema }: Pick<TenantRow, 'database_name' | 'schema'>,
  stop: AbortSignal,
): Promise<ListTablesResponse> {
  const owner = owners.of(schema);
  const role = schemaOwner(schema);
  const [from, to] = await Promise.all([source, target].map(({ server }) => connections.migratorLogin(server, name)));
  const listed = await whileConnectable(source.client, name, from!.user, () =>
    owner.tables(source.server, from!, role, '', stop),
  );
  const partitions = listed.tables.filter(({ partitionOf }) => partitionOf !== '');
  await whileConnectable(target.client, name, to!.user, () =>
    owner.makePartitions(target.server, to!, role, partitions),
  );
  return listed;
}
