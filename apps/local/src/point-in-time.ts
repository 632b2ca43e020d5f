import { join } from 'node:path';
import { recoverTo } from '@mad/embedded-postgres';
import { openObjectStore } from '@mad/object-store';
import { clientOptions, statementsOn, withClient } from '@mad/postgres';
import { archivable, archivePast } from '@mad/provisioner';
import { resultsMigrations } from '@mad/results';
import type { MetadataPlace } from './metadata-backup.ts';

/** Which tenant, and when. */
export interface PastRequest {
  /** The folder of the local system. */
  home: string;
  orgId: string;
  /** As Postgres reads a timestamptz. */
  to: string;
  /** Postgres settings over our own, as the running server has them. */
  settings?: Readonly<Record<string, string>>;
  log?: (message: string) => void;
}

/** A backup of an earlier moment. */
export interface PastBackup {
  backupId: string;
  /** The moment, ISO with microseconds. */
  at: string;
  rows: number;
  sizeBytes: number;
}

const SCHEMA = 'results';
const migrations = [...resultsMigrations]
  .sort((a, b) => a.time - b.time)
  .map(({ migrationName, checksum }) => ({ name: migrationName, checksum }));

/**
 * Makes a backup of one organization's results as they were at a moment: a second server is brought to that moment by base
 * backup and log, the one database is archived from it, and the server is thrown away. Nothing of the running system is
 * touched but the backup's own rows. Throws when the moment cannot be reached, or the organization has no database.
 */
export async function backUpThePast(
  { adminUrl, database, master, objectStoreUrl }: MetadataPlace,
  { home, orgId, to, settings, log }: PastRequest,
): Promise<PastBackup> {
  const metadata = new URL(adminUrl);
  metadata.pathname = `/${database}`;
  return withClient(clientOptions(metadata.href), async (client) => {
    const tx = statementsOn(client);
    // Before the long part.
    await archivable(tx, { orgId, schema: SCHEMA });
    const recovered = await recoverTo({
      dataDir: join(home, 'postgres'),
      adminUrl,
      to,
      ...(settings === undefined ? {} : { settings }),
      ...(log === undefined ? {} : { log }),
    });
    try {
      const made = await archivePast(tx, {
        master,
        objects: openObjectStore(objectStoreUrl),
        orgId,
        schema: SCHEMA,
        migrations,
        url: recovered.server.adminUrl,
        at: recovered.at,
      });
      return { ...made, at: recovered.at };
    } finally {
      await recovered.discard();
    }
  });
}
