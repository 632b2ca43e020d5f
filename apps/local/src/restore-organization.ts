import { catalogOrganizationRows, countCatalogUsage } from '@mad/catalog';
import { identityOrganizationRows, settleIdentityRows } from '@mad/identity';
import { openObjectStore, type ObjectStore } from '@mad/object-store';
import {
  clientOptions,
  compareOrganizationRows,
  ownerRole,
  putBackOrganizationRows,
  stageOrganizationRows,
  statementsOn,
  withClient,
  type OwnedRows,
  type PutBack,
  type Statements,
  type TableDifference,
} from '@mad/postgres';
import {
  beginOrganizationRestore,
  endOrganizationRestore,
  erasuresToReplay,
  noteOwnerRestored,
  noteRestoreFailed,
  provisionerOrganizationRows,
  pruneProvisionerRows,
  settleProvisionerRows,
} from '@mad/provisioner';
import pg from 'pg';
import { databaseUrl, loadBeside, type MetadataPlace } from './metadata-backup.ts';

/** What is to come back, and how. */
export interface OrganizationRequest {
  archive: string;
  /** Slug or id. */
  organization: string;
  /** Counts and changes nothing. */
  dryRun?: boolean;
  /** What to do with rows that are there; without it, any that could be replaced and differs is a refusal. */
  mode?: PutBack;
}

/** What came back, or with a dry run would. */
export interface OrganizationRestored {
  orgId: string;
  /** Empty for a dry run. */
  operationId: string;
  tables: TableDifference[];
}

/** Rows that are there are other than the archive's: nothing was changed. */
export class RowsDiffer extends Error {
  override readonly name = 'RowsDiffer';
  readonly tables: readonly TableDifference[];

  constructor(tables: readonly TableDifference[]) {
    const rows = tables.filter(isConflict).map(({ table, different }) => `${different} of ${table}`);
    super(`rows differ from the archive: ${rows.join(', ')}; say --missing-only or --replace`);
    this.tables = tables;
  }
}

interface Settled {
  operationId: string;
  archive: string;
  mode: PutBack;
  /** How the owner's tables stood before. */
  before: readonly TableDifference[];
}

interface Owner {
  rows: OwnedRows;
  /** Takes from the archive's rows what must not come back. */
  prune?: (tx: Statements, orgId: string, objects: ObjectStore) => Promise<void>;
  /** Brings the owner's other rows in line, as the owner. */
  settle: (tx: Statements, orgId: string, done: Settled) => Promise<void>;
}

/** In this order: catalog and provisioner have no use for an organization that identity does not know. */
const OWNERS: readonly Owner[] = [
  { rows: identityOrganizationRows, settle: settleIdentityRows },
  { rows: catalogOrganizationRows, settle: countCatalogUsage },
  { rows: provisionerOrganizationRows, prune: pruneProvisionerRows, settle: settleProvisionerRows },
];

const LOCK = 'mad.restore-organization';
const LOCK_WAIT = '60s';

const isConflict = ({ rule, different }: TableDifference): boolean => rule === 'equal' && different > 0;

/**
 * Brings one organization's rows back from an archive into the metadata database at work. The archive is first restored
 * whole into a database of its own, compared and brought to this release's schema: a damaged one changes nothing. Then
 * each owner's rows are put back in one transaction; another call goes on where one was broken off. Throws RowsDiffer,
 * ArchiveError, and for an organization that was erased.
 */
export async function restoreOrganization(
  place: MetadataPlace,
  request: OrganizationRequest,
): Promise<OrganizationRestored> {
  const objects = openObjectStore(place.objectStoreUrl);
  const scratch = `${place.database}_organization`;
  return inDatabase(databaseUrl(place.adminUrl, place.database), async (live) => {
    const lock = await live.query<{ free: boolean }>('SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS free', [
      LOCK,
    ]);
    if (!lock.rows[0]!.free) throw new Error('another organization is being restored: try again');
    await refuseErased(live, request.organization, objects, place);
    try {
      await loadBeside(place, request.archive, scratch);
      return await inDatabase(databaseUrl(place.adminUrl, scratch), async (archive) => {
        const orgId = await findOrganization(live, archive, request.organization);
        await refuseErased(live, orgId, objects, place);
        return bringBack({ live, archive, objects, orgId }, request);
      });
    } finally {
      await live.query(`DROP DATABASE IF EXISTS ${pg.escapeIdentifier(scratch)} WITH (FORCE)`);
    }
  });
}

interface Work {
  live: pg.Client;
  archive: pg.Client;
  objects: ObjectStore;
  orgId: string;
}

async function bringBack(work: Work, { archive, mode, dryRun }: OrganizationRequest): Promise<OrganizationRestored> {
  const { live, orgId } = work;
  const tx = statementsOn(live);
  const tables: TableDifference[] = [];
  for (const owner of OWNERS) {
    tables.push(...(await inOwner(work, owner, (rows) => compareOrganizationRows(live, rows), 'ROLLBACK')));
  }
  if (dryRun === true) return { orgId, operationId: '', tables };
  if (mode === undefined && tables.some(isConflict)) throw new RowsDiffer(tables);
  const about = { archive, mode: mode ?? 'missing-only' };
  const restore = await beginOrganizationRestore(
    tx,
    orgId,
    about,
    OWNERS.map(({ rows }) => rows.schema),
  );
  const { operationId } = restore;
  try {
    for (const owner of OWNERS) {
      const { schema } = owner.rows;
      if (restore.done.includes(schema)) continue;
      await inOwner(work, owner, async (rows) => {
        const before = await putBackOrganizationRows(live, rows, about.mode);
        // Somebody changed them since all were counted.
        if (mode === undefined && before.some(isConflict)) throw new RowsDiffer(before);
        await owner.settle(tx, orgId, { operationId, ...about, before });
        await live.query('RESET ROLE');
        await noteOwnerRestored(tx, restore, schema, before);
      });
    }
  } catch (error) {
    await noteRestoreFailed(tx, restore, (error as Error).message).catch(() => undefined);
    throw error;
  }
  await endOrganizationRestore(tx, restore);
  return { orgId, operationId, tables };
}

/** Runs `fn` in a transaction as the owner, the archive's rows beside the tables. */
async function inOwner<T>(
  { live, archive, objects, orgId }: Work,
  { rows, prune }: Owner,
  fn: (rows: OwnedRows & { orgId: string }) => Promise<T>,
  end: 'COMMIT' | 'ROLLBACK' = 'COMMIT',
): Promise<T> {
  const owned = { ...rows, orgId };
  await live.query('BEGIN');
  try {
    await live.query(`SET LOCAL lock_timeout = '${LOCK_WAIT}'`);
    await stageOrganizationRows(live, archive, owned);
    await prune?.(statementsOn(live), orgId, objects);
    await live.query(`SET LOCAL ROLE ${pg.escapeIdentifier(ownerRole(rows.schema))}`);
    const answer = await fn(owned);
    await live.query(end);
    return answer;
  } catch (error) {
    await live.query('ROLLBACK');
    throw error;
  }
}

/** The organization's id. Throws for a slug that was another organization's then than it is now. */
async function findOrganization(live: pg.Client, archive: pg.Client, wanted: string): Promise<string> {
  const ids = new Set<string>();
  for (const client of [archive, live]) {
    const { rows } = await client.query<{ org_id: string }>(
      'SELECT org_id FROM identity.organizations WHERE org_id::text = lower($1) OR slug = $1',
      [wanted],
    );
    for (const { org_id: orgId } of rows) ids.add(orgId);
  }
  const [orgId, other] = ids;
  if (orgId === undefined)
    throw new Error(`neither the archive nor the metadata database has an organization ${wanted}`);
  if (other !== undefined)
    throw new Error(`${wanted} was ${orgId} when it was archived and is ${other} now: say which id`);
  return orgId;
}

/** Throws when the organization was erased: by what the database knows, or by a record beside it. */
async function refuseErased(
  live: pg.Client,
  wanted: string,
  objects: ObjectStore,
  { erasureKeys }: MetadataPlace,
): Promise<void> {
  const { rowCount } = await live.query(
    `SELECT FROM identity.organizations WHERE org_id::text = lower($1) AND status = 'erased'
     UNION ALL SELECT FROM provisioner.erasure_records WHERE org_id::text = lower($1)`,
    [wanted],
  );
  const kept = await erasuresToReplay(objects, erasureKeys);
  if (rowCount === 0 && !kept.some(({ record }) => record.org_id === wanted.toLowerCase())) return;
  throw new Error(`ORGANIZATION_ERASED: ${wanted} was erased: nothing of it is brought back`);
}

const inDatabase = <T>(url: string, fn: (client: pg.Client) => Promise<T>): Promise<T> =>
  withClient({ ...clientOptions(url), application_name: 'mad-restore-organization' }, fn);
