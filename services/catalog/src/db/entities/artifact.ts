import { EntitySchema } from '@mad/postgres';

/** What an artifact is for, as the table spells it. */
export type ArtifactPurposeName = 'receptor' | 'other';

/** A row of catalog.artifacts. */
export interface ArtifactRow {
  org_id: string;
  artifact_id: string;
  purpose: ArtifactPurposeName;
  name: string;
  content_type: string;
  /** Its key in the object store. */
  uri: string;
  size_bytes: string;
  sha256: string;
  created_by: string;
  created_at: Date;
}

export const ArtifactEntity = new EntitySchema<ArtifactRow>({
  name: 'artifacts',
  schema: 'catalog',
  columns: {
    org_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'artifacts_pkey' },
    artifact_id: {
      type: 'uuid',
      primary: true,
      primaryKeyConstraintName: 'artifacts_pkey',
      default: () => 'gen_random_uuid()',
    },
    purpose: { type: 'text' },
    name: { type: 'text', comment: 'Confidential: the name it was stored under' },
    content_type: { type: 'text' },
    uri: { type: 'text', comment: 'Internal: its key in the object store' },
    size_bytes: { type: 'bigint' },
    sha256: { type: 'text', comment: 'Confidential: sha256 of the content as kept, hex' },
    created_by: { type: 'uuid', comment: 'PII: the user who stored it' },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
  uniques: [{ name: 'artifacts_org_id_purpose_sha256_key', columns: ['org_id', 'purpose', 'sha256'] }],
});
