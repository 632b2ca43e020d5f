import { uuidv7 } from '@mad/process';
import type { EntitySchemaOptions } from 'typeorm';
import { metadataDatabase, type TestDatabase } from '@mad/testing';
import {
  appendOnlySql,
  bossInstallSql,
  bossUninstallSql,
  defineMigration,
  EntitySchema,
  idempotencyTableSql,
  openDatabase,
  rlsSql,
  type Database,
  type DatabaseOptions,
} from '../src/index.ts';

/** The schema these tests work on: one that exists on the test server, with tables of our own. */
export const SCHEMA = 'catalog';
export const ACME = uuidv7();
export const GLOBEX = uuidv7();

export interface Note {
  noteId: string;
  orgId: string | null;
  title: string;
  label: string | null;
  visibility: string;
  size: number;
}

export const NOTE_COLUMNS: EntitySchemaOptions<Note>['columns'] = {
  noteId: { name: 'note_id', type: 'uuid', primary: true, default: () => 'gen_random_uuid()' },
  orgId: { name: 'org_id', type: 'uuid', nullable: true },
  title: { type: 'text' },
  label: { type: 'citext', nullable: true },
  visibility: { type: 'text', default: 'private' },
  size: { type: 'bigint', default: 0 },
};

export const NoteEntity = new EntitySchema<Note>({ name: 'Note', tableName: 'notes', columns: NOTE_COLUMNS });

export const notes = defineMigration('2026_01_02_0304_notes.ts', {
  up: `
    CREATE TABLE catalog.notes (
      note_id uuid DEFAULT gen_random_uuid() CONSTRAINT notes_pkey PRIMARY KEY,
      org_id uuid,
      title text NOT NULL CONSTRAINT notes_title_check CHECK (title <> ''),
      label citext,
      visibility text NOT NULL DEFAULT 'private',
      size bigint NOT NULL DEFAULT 0,
      CONSTRAINT notes_org_id_title_key UNIQUE (org_id, title));
    CREATE INDEX idx_notes_org_label ON catalog.notes (org_id, label);
    COMMENT ON TABLE catalog.notes IS 'Internal: notes of a test.';
    ${rlsSql({ schema: SCHEMA, table: 'notes', systemMay: true, builtInRows: true, readAlso: { public: `visibility = 'public'` } })}`,
  down: 'DROP TABLE catalog.notes',
});

export const comments = defineMigration('2026_01_03_0000_comments.ts', {
  up: `
    CREATE TABLE catalog.comments (
      org_id uuid NOT NULL,
      seq bigint NOT NULL,
      note_id uuid NOT NULL CONSTRAINT comments_note_id_fkey REFERENCES catalog.notes,
      words text NOT NULL,
      CONSTRAINT comments_pkey PRIMARY KEY (org_id, seq)
    ) PARTITION BY HASH (org_id);
    CREATE TABLE catalog.comments_0 PARTITION OF catalog.comments FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE catalog.comments_1 PARTITION OF catalog.comments FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    ${rlsSql({ schema: SCHEMA, table: 'comments', systemMay: false })}
    ${appendOnlySql(SCHEMA, 'comments')}
    ${idempotencyTableSql(SCHEMA)}`,
  down: 'DROP TABLE catalog.idempotency_keys; DROP TABLE catalog.comments',
});

export const boss = defineMigration('2026_01_04_0000_boss.ts', {
  up: bossInstallSql('catalog_boss'),
  down: bossUninstallSql('catalog_boss'),
});

export const MIGRATIONS = [notes, comments, boss];

export async function notesDatabase(): Promise<TestDatabase> {
  return metadataDatabase({ services: [{ schema: SCHEMA, migrations: MIGRATIONS }] });
}

export async function openNotes(database: TestDatabase, options: Partial<DatabaseOptions> = {}): Promise<Database> {
  return openDatabase({
    url: database.pooledUrl('mad_catalog'),
    systemUrl: database.pooledUrl('mad_catalog_system'),
    schema: SCHEMA,
    entities: [NoteEntity],
    applicationName: 'notes',
    ...options,
  });
}
