import type { ObjectStore } from '@mad/object-store';
import type { Boss, Database } from '@mad/postgres';
import { MINUTE_MS, type Logger } from '@mad/process';
import { beyondRetention } from '../domain/backup-rules.ts';
import type { TenantKey } from '../domain/plan.ts';
import type { Held } from '../operations/lease.ts';
import type { Runs } from '../operations/runs.ts';
import type { SchemaOwners } from '../servers/schema-owners.ts';
import { beginBackup, beginWithBackup } from './begin.ts';
import { removeWithdrawn, withdraw } from './removal.ts';

/** The queue of the clock's messages. */
export const BACKUP_QUEUE = 'backup-schedule';
const EVERY_FIVE_MINUTES = '*/5 * * * *';
/** A look goes on until nothing is due, this long at most: the next one begins where it stopped. */
const LOOK_MS = 4.5 * MINUTE_MS;
/** Of these, backups have so long before tries have a turn as well. */
const BACKUPS_MS = 3.5 * MINUTE_MS;
/** Under way at once, as many as a process carries out: one that only waits for its turn would keep its tenant busy. */
const AT_ONCE = 2;
const BATCH = 50;
/** Tries under way at once: one costs as much as a restore, and the rest of what a process carries out is left to backups. */
const TRIES_AT_ONCE = 1;
/** A tenant's newest backup is tried again after so long. */
const TRY_EVERY = '7 days';
/** One that failed is asked for again after so long. */
const RETRY_AFTER = '1 hour';
const ACTOR = { actorKind: 'service' } as const;

/** How often a tenant is backed up, and how many of these backups are kept. */
export interface BackupPolicy {
  /** 0 makes none. */
  everyHours: number;
  keep: number;
}

export interface ScheduleOptions {
  database: Database;
  runs: Runs;
  objects: ObjectStore;
  owners: SchemaOwners;
  leaseMs: number;
  backupPolicy: BackupPolicy;
  logger: Logger;
}

/** Looks every five minutes, in one of the processes, what is due. */
export async function scheduleBackups(boss: Boss, options: ScheduleOptions): Promise<void> {
  await boss.work(BACKUP_QUEUE, ({ signal }) => doWhatIsDue(options, signal));
  await boss.schedule(BACKUP_QUEUE, EVERY_FIVE_MINUTES);
}

/** Makes the backups that are due, then tries such as were made before, and removes what nobody keeps. */
async function doWhatIsDue(options: ScheduleOptions, signal: AbortSignal): Promise<void> {
  const over = AbortSignal.timeout(LOOK_MS);
  await makeDue(options, AbortSignal.any([signal, AbortSignal.timeout(BACKUPS_MS)]));
  await tryDue(options, AbortSignal.any([signal, over]));
  await retire(options);
}

/**
 * A tenant is due when its last scheduled backup, whole or under way, was asked for so long ago. Those that failed do not
 * count, but are not asked for again at once.
 */
const DUE_SQL = `
  SELECT t.org_id AS "orgId", t.schema FROM provisioner.tenants t
    LEFT JOIN provisioner.backup_policies p USING (org_id)
    LEFT JOIN LATERAL (SELECT max(b.created_at) AS asked,
        max(b.created_at) FILTER (WHERE b.completed_at IS NOT NULL OR o.state = 'running') AS made
      FROM provisioner.backups b JOIN provisioner.operations o USING (operation_id)
      WHERE b.org_id = t.org_id AND b.schema = t.schema AND b.scheduled) last ON true
  WHERE t.state IN ('ready', 'read_only', 'suspended') AND t.step IS NULL AND t.schema = ANY ($1)
    AND coalesce(p.every_hours, $2) > 0
    AND coalesce(last.made, '-infinity') <= now() - coalesce(p.every_hours, $2) * interval '1 hour'
    AND coalesce(last.asked, '-infinity') <= now() - interval '${RETRY_AFTER}'
  ORDER BY last.made NULLS FIRST, t.created_at LIMIT ${BATCH}`;

async function makeDue(options: ScheduleOptions, over: AbortSignal): Promise<void> {
  const { database, owners, leaseMs, backupPolicy } = options;
  await undertakeAll(options, over, {
    atOnce: AT_ONCE,
    due: () => database.asSystem((tx) => tx.query<TenantKey>(DUE_SQL, [owners.schemas, backupPolicy.everyHours])),
    begin: async (key) => {
      const request = { leaseMs, actor: ACTOR, scheduled: true };
      return (await database.asSystem((tx) => beginBackup(tx, key, request))).held;
    },
  });
}

/**
 * The newest whole backup of each tenant, the one whose tenant was tried the longest ago first. One that could not be tried,
 * say because its server is away, lets the others go before.
 */
const TRIES_SQL = `
  SELECT "orgId", newest.schema, "backupId" FROM (
    SELECT DISTINCT ON (b.org_id, b.schema) b.org_id AS "orgId", b.schema, b.backup_id AS "backupId",
      (SELECT max(a.tried_at) FROM provisioner.backups a WHERE a.org_id = b.org_id AND a.schema = b.schema) AS tried_at
    FROM provisioner.backups b WHERE b.completed_at IS NOT NULL AND b.deleting_at IS NULL
    ORDER BY b.org_id, b.schema, b.created_at DESC) newest
  JOIN provisioner.tenants t ON t.org_id = "orgId" AND t.schema = newest.schema
  WHERE t.state IN ('ready', 'read_only', 'suspended') AND t.step IS NULL
    AND coalesce(tried_at, '-infinity') < now() - interval '${TRY_EVERY}'
    AND NOT EXISTS (SELECT FROM provisioner.operations o WHERE o.org_id = t.org_id AND o.schema = t.schema
      AND o.kind = 'verify_backup' AND o.started_at > now() - interval '${RETRY_AFTER}')
  ORDER BY tried_at NULLS FIRST LIMIT ${BATCH}`;

/** Tries that an earlier look left at work count: whoever began them waits no more. */
const TRIES_RUNNING_SQL = `
  SELECT count(*)::int AS n FROM provisioner.operations
  WHERE kind = 'verify_backup' AND state = 'running' AND actor_kind = $1`;

async function tryDue(options: ScheduleOptions, over: AbortSignal): Promise<void> {
  const { database, leaseMs } = options;
  const [running] = await database.asSystem((tx) => tx.query<{ n: number }>(TRIES_RUNNING_SQL, [ACTOR.actorKind]));
  await undertakeAll(options, over, {
    atOnce: TRIES_AT_ONCE - running!.n,
    due: () => database.asSystem((tx) => tx.query<TenantKey & { backupId: string }>(TRIES_SQL)),
    begin: ({ backupId }) =>
      database.asSystem((tx) => beginWithBackup(tx, backupId, 'verify_backup', { leaseMs, actor: ACTOR })),
  });
}

/** What is due of one kind, and how it is begun. */
interface Due<K extends TenantKey> {
  atOnce: number;
  due: () => Promise<K[]>;
  begin: (key: K) => Promise<Held>;
}

/** Begins all that is due, so many at once, until nothing is left or the signal says that it is enough. */
async function undertakeAll<K extends TenantKey>(
  options: ScheduleOptions,
  over: AbortSignal,
  { atOnce, due, begin }: Due<K>,
): Promise<void> {
  if (atOnce <= 0) return;
  const seen = new Set<string>();
  while (!over.aborted) {
    // What could not be begun is due still: the next look tries it again.
    const fresh = (await due()).filter(({ orgId, schema }) => !seen.has(`${orgId} ${schema}`));
    if (fresh.length === 0) return;
    const worker = async (): Promise<void> => {
      for (let key = fresh.shift(); key !== undefined && !over.aborted; key = fresh.shift()) {
        seen.add(`${key.orgId} ${key.schema}`);
        const mine = key;
        await undertake(options, mine, () => begin(mine), over);
      }
    };
    await Promise.all(Array.from({ length: atOnce }, worker));
  }
}

/** Begins it and waits for its end or for the signal: it goes on without anybody waiting. */
async function undertake(
  { runs, logger }: ScheduleOptions,
  key: TenantKey,
  beginIt: () => Promise<Held>,
  enough: AbortSignal,
): Promise<void> {
  try {
    const run = runs.carryOut(await beginIt());
    if (enough.aborted) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const leave = (): void => resolve();
    enough.addEventListener('abort', leave);
    await Promise.race([run, promise]);
    enough.removeEventListener('abort', leave);
  } catch (error) {
    // Busy, or erased meanwhile: the next look sees what it is then.
    logger.info({ org_id: key.orgId, schema: key.schema, error }, 'what was due of a backup was not begun');
  }
}

interface Kept {
  orgId: string;
  schema: string;
  keep: number;
  backupId: string;
  createdAt: Date;
  verified: boolean;
}

/** Scheduled backups beyond the number that is kept go, and so does what failed. */
async function retire({ database, objects, backupPolicy }: ScheduleOptions): Promise<void> {
  const kept = await database.asSystem((tx) =>
    tx.query<Kept>(
      `SELECT b.org_id AS "orgId", b.schema, coalesce(p.keep, $1) AS keep, b.backup_id AS "backupId",
         b.created_at AS "createdAt", b.verified_at IS NOT NULL AS verified
       FROM provisioner.backups b LEFT JOIN provisioner.backup_policies p USING (org_id)
       WHERE b.scheduled AND b.completed_at IS NOT NULL AND b.deleting_at IS NULL`,
      [backupPolicy.keep],
    ),
  );
  const byTenant = Map.groupBy(kept, ({ orgId, schema }) => `${orgId} ${schema}`);
  const old = [...byTenant.values()].flatMap((backups) => beyondRetention(backups, backups[0]!.keep));
  const failed = await database.asSystem((tx) =>
    tx.query<{ backupId: string }>(
      `SELECT b.backup_id AS "backupId" FROM provisioner.backups b JOIN provisioner.operations o USING (operation_id)
       WHERE b.completed_at IS NULL AND b.deleting_at IS NULL AND o.state <> 'running'
         AND o.ended_at < now() - interval '7 days'`,
    ),
  );
  for (const { backupId } of [...old, ...failed]) {
    await database.asSystem((tx) => withdraw(tx, backupId)).catch(() => undefined);
  }
  await removeWithdrawn({ database, objects });
}
