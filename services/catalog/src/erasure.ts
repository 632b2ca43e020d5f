import type { Database, Statements } from '@mad/postgres';

/** Removed in one transaction at most: a second's work, so that nobody waits long for the organization's rows. */
const BATCH = 10_000;
/** Requests that were let in just before an organization was shut are over long before that. */
const STRAGGLERS = '1 day';

/** What a call removed, and all calls before it. */
export interface Erased {
  done: boolean;
  counts: Record<string, number>;
}

/** Removes some of an organization's rows, in the caller's transaction; again and again until it is done. */
export async function eraseOrganizationRows(tx: Statements, orgId: string): Promise<Erased> {
  const [erased] = await tx.query<Erased>('SELECT done, counts FROM catalog.erase_organization($1, $2)', [
    orgId,
    BATCH,
  ]);
  return erased!;
}

/** Removes what requests that were under way wrote of organizations that were erased within the last day. */
export async function eraseStragglers(database: Database): Promise<void> {
  const recent = await database.asSystem((tx) =>
    tx.query<{ org_id: string }>(
      `SELECT org_id FROM catalog.erasures WHERE begun_at > now() - interval '${STRAGGLERS}' ORDER BY org_id`,
    ),
  );
  for (const { org_id: orgId } of recent) await database.asSystem((tx) => eraseOrganizationRows(tx, orgId));
}
