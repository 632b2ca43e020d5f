import { ObjectKeyService } from '@mad/proto/provisioner';
import { bind, type BoundService } from '@mad/rpc';
import type { ProvisionerContext } from '../context.ts';
import { refuseErased } from '../erasure/begin.ts';
import {
  findDataKeys,
  noteDataKey,
  objectKeyOf,
  prepareDataKey,
  unwrapDataKey,
  type DataKey,
} from '../secrets/data-keys.ts';

export function objectKeyService({ database, master }: ProvisionerContext): BoundService {
  /** The first key of an organization that has none. */
  async function first(orgId: string): Promise<DataKey> {
    const prepared = await prepareDataKey((fn) => database.asSystem(fn), master, orgId);
    return database.asSystem(async (tx) => {
      await refuseErased(tx, orgId);
      return noteDataKey(tx, master, prepared);
    });
  }

  return bind(ObjectKeyService, {
    async getObjectKeys(request, ctx) {
      const orgId = request.orgId.toLowerCase();
      const rows = await database.asSystem((tx) => findDataKeys(tx, orgId), { signal: ctx.signal });
      const dataKeys = await Promise.all(rows.map((row) => unwrapDataKey(master, row)));
      if (dataKeys.length === 0) dataKeys.push(await first(orgId));
      return { keys: dataKeys.map((key) => ({ version: key.version, key: objectKeyOf(key) })) };
    },
  });
}
