import type { ServiceImpl } from '@connectrpc/connect';
import type { StorageService } from '@mad/proto/results';
import type { Context } from '../context.ts';
import type { ObjectPurpose } from '../db/entities/stored-object.ts';

interface StoredRow {
  purpose: ObjectPurpose;
  objects: string;
  size_bytes: string;
}

/** What is kept in the object store, as the notes of its objects tell. */
export function storageService({ tenants }: Pick<Context, 'tenants'>): ServiceImpl<typeof StorageService> {
  return {
    async describeStorage({ orgId }, { signal }) {
      const rows = await tenants.read(
        orgId,
        (tx) =>
          tx.query<StoredRow>(
            `SELECT purpose, count(*) AS objects, sum(size_bytes) AS size_bytes FROM stored_objects
              WHERE state = 'kept' GROUP BY purpose ORDER BY purpose`,
          ),
        { signal },
      );
      return {
        stored: rows.map(({ purpose, objects, size_bytes: sizeBytes }) => {
          return { purpose, objects: BigInt(objects), sizeBytes: BigInt(sizeBytes) };
        }),
      };
    },
  };
}
