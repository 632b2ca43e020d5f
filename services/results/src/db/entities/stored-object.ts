import { EntitySchema } from '@mad/postgres';

/** What an object holds. */
export type ObjectPurpose = 'poses' | 'exports';

/** A row of results.stored_objects: a note that an object is written, kept, or to be removed. */
export interface StoredObjectRow {
  object_id: string;
  purpose: ObjectPurpose;
  owner_id: string;
  task_execution_id: string | null;
  state: 'writing' | 'kept' | 'dropped';
  size_bytes: number;
  created_at: Date;
}

export const StoredObjectEntity = new EntitySchema<StoredObjectRow>({
  name: 'stored_objects',
  schema: 'results',
  columns: {
    object_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'stored_objects_pkey' },
    purpose: { type: 'text' },
    owner_id: { type: 'uuid' },
    task_execution_id: { type: 'uuid', nullable: true },
    state: { type: 'text', default: 'writing' },
    size_bytes: { type: 'bigint', default: 0 },
    created_at: { type: 'timestamptz', default: () => 'now()' },
  },
});
