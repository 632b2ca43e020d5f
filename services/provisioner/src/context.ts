import type { JsonWebKey } from 'node:crypto';
import type { ObjectStore } from '@mad/object-store';
import type { Boss, Database } from '@mad/postgres';
import type { Logger } from '@mad/process';
import type { BackupPolicy } from './backups/schedule.ts';
import type { ChangeFeed } from './provisioning/change-feed.ts';
import type { References } from './drift/references.ts';
import type { Runs } from './operations/runs.ts';
import type { RolloutKeeper } from './rollouts/rollout-keeper.ts';
import type { MasterKeys } from './secrets/master-keys.ts';
import type { SchemaOwners } from './servers/schema-owners.ts';
import type { ServerConnections } from './servers/server-connections.ts';

/** What handlers may reach. */
export interface ProvisionerContext {
  database: Database;
  boss: Boss;
  master: MasterKeys;
  connections: ServerConnections;
  owners: SchemaOwners;
  references: References;
  rollouts: RolloutKeeper;
  runs: Runs;
  changes: ChangeFeed;
  objects: ObjectStore;
  /** Public keys that sign records of erasures: provisioner's own, two while it changes. */
  trustedJwks: readonly JsonWebKey[];
  /** How long a step may be silent before another run takes over, in milliseconds. */
  leaseMs: number;
  /** How long a process may use its share of connections without renewing it, in milliseconds. */
  shareMs: number;
  /** How long sessions under a login that is no longer in use may go on, in milliseconds. */
  rotateGraceMs: number;
  /** How long the leavings of a failed operation wait for somebody to go on with it, in milliseconds. */
  cleanupGraceMs: number;
  /** How long the database a restore replaced is kept unless the request says, in milliseconds. */
  replacedKeepMs: number;
  /** Of organizations that have none of their own. */
  backupPolicy: BackupPolicy;
  /** Of the metadata database. */
  metadataBackupPolicy: BackupPolicy;
  /** The region of organizations that name none. */
  defaultRegion: string;
  logger: Logger;
}
