import type { TenantStateName } from './tenant-state.ts';

/** What can differ between the rows and what is really there. */
export const DIFFERENCES = [
  'orphan_database',
  'orphan_stock',
  'orphan_copy',
  'orphan_template',
  'orphan_reference',
  'orphan_role',
  'orphan_archive',
  'orphan_object',
  'lost_database',
  'lost_role',
  'lost_stock',
  'lost_archive',
] as const;
export type DifferenceKind = (typeof DIFFERENCES)[number];

/** One difference. */
export interface Difference {
  kind: DifferenceKind;
  /** Empty for what is in the object store. */
  server: string;
  /** Of the database, the role, or the object. */
  name: string;
  /** Where one is concerned. */
  orgId?: string;
  schema?: string;
  /** For a lost archive. */
  backupId?: string;
}

/** What a server has, of databases and roles whose names begin like ours. */
export interface ServerFacts {
  server: string;
  databases: ReadonlySet<string>;
  roles: ReadonlySet<string>;
}

/** What the rows say a server should have, or may have. */
export interface ServerIntent {
  server: string;
  tenants: readonly {
    orgId: string;
    schema: string;
    database: string;
    state: TenantStateName;
    /** Something is being done with it. */
    busy: boolean;
    roles: readonly string[];
  }[];
  /** Named in cleanup records: whoever made them answers for them. */
  recorded: ReadonlySet<string>;
  stock: readonly { name: string; schema: string; state: string }[];
  /** Templates that are in use; undefined for a schema whose owner did not say. */
  templates: ReadonlyMap<string, ReadonlySet<string> | undefined>;
}

interface Named {
  kind: Extract<
    DifferenceKind,
    'orphan_database' | 'orphan_stock' | 'orphan_copy' | 'orphan_template' | 'orphan_reference'
  >;
  schema: string;
  orgId?: string;
  /** The last digits of the operation that made it. */
  digits?: string;
}

const ORG = /^([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})$/;

/** What a database of ours is, by its name; undefined for a name that no rule of ours makes: such a one is nobody's to drop. */
export function databaseOf(name: string, schemas: readonly string[]): Named | undefined {
  // The longest schema first: one may begin like another.
  for (const schema of schemas.toSorted((a, b) => b.length - a.length)) {
    if (!name.startsWith(`mad_${schema}_`)) continue;
    const rest = name.slice(`mad_${schema}_`.length);
    const org = ORG.exec(rest);
    if (org !== null) return { kind: 'orphan_database', schema, orgId: org.slice(1).join('-') };
    if (/^stock_[0-9a-f]{16}$/.test(rest)) return { kind: 'orphan_stock', schema };
    if (/^template_[0-9a-f]{16}(_draft)?$/.test(rest)) return { kind: 'orphan_template', schema };
    if (/^reference_[0-9a-f]{16}$/.test(rest)) return { kind: 'orphan_reference', schema };
    const copy = /^(?:copy|old)_([0-9a-f]{16})$/.exec(rest);
    if (copy !== null) return { kind: 'orphan_copy', schema, digits: copy[1]! };
  }
  return undefined;
}

/** Whose login a role is, by its name; undefined for one that is no tenant's. */
export function loginOf(name: string, schemas: readonly string[]): { schema: string; orgId: string } | undefined {
  const of = /_[ab]$/.test(name) ? databaseOf(name.slice(0, -2), schemas) : undefined;
  return of?.orgId === undefined ? undefined : { schema: of.schema, orgId: of.orgId };
}

const HAS_DATABASE: readonly TenantStateName[] = ['ready', 'suspended', 'read_only'];

/**
 * The differences of one server. `before` was seen before the rows were read and `after` afterwards: what is made or removed
 * meanwhile is in one of them only, and no difference. `live`: last digits of the operations under way.
 */
export function compareServer(
  intent: ServerIntent,
  before: ServerFacts,
  after: ServerFacts,
  { schemas, live }: { schemas: readonly string[]; live: ReadonlySet<string> },
): Difference[] {
  const { server, tenants, recorded, stock, templates } = intent;
  const kept = tenants.filter(({ state }) => state !== 'erased');
  const busy = new Set(tenants.filter((one) => one.busy).map(({ orgId, schema }) => `${orgId} ${schema}`));
  const databases = new Set([...kept.map(({ database }) => database), ...recorded, ...stock.map(({ name }) => name)]);
  const roles = new Set([...kept.flatMap((one) => one.roles), ...recorded]);
  const found: Difference[] = [];
  for (const name of before.databases) {
    if (databases.has(name) || !after.databases.has(name)) continue;
    const of = databaseOf(name, schemas);
    if (of === undefined) continue;
    const { kind, schema, orgId, digits } = of;
    if (digits !== undefined && live.has(digits)) continue;
    if (orgId !== undefined && busy.has(`${orgId} ${schema}`)) continue;
    if (kind === 'orphan_template') {
      const used = templates.get(schema);
      if (used === undefined || used.has(name)) continue;
    }
    found.push({ kind, server, name, schema, ...(orgId === undefined ? {} : { orgId }) });
  }
  for (const name of before.roles) {
    if (roles.has(name) || !after.roles.has(name)) continue;
    const of = loginOf(name, schemas);
    if (of === undefined || busy.has(`${of.orgId} ${of.schema}`)) continue;
    found.push({ kind: 'orphan_role', server, name, ...of });
  }
  for (const { orgId, schema, database, state, busy: isBusy, roles: logins } of tenants) {
    if (isBusy || !HAS_DATABASE.includes(state)) continue;
    const about = { server, orgId, schema };
    if (!before.databases.has(database) && !after.databases.has(database)) {
      found.push({ kind: 'lost_database', name: database, ...about });
    }
    for (const name of logins) {
      if (!before.roles.has(name) && !after.roles.has(name)) found.push({ kind: 'lost_role', name, ...about });
    }
  }
  for (const { name, schema, state } of stock) {
    if (state === 'ready' && !before.databases.has(name) && !after.databases.has(name)) {
      found.push({ kind: 'lost_stock', server, name, schema });
    }
  }
  return found;
}

/** What the rows say of the object store. */
export interface ObjectIntent {
  archives: readonly { key: string; orgId: string; schema: string; backupId: string; whole: boolean }[];
  /** Organizations that were erased. */
  erased: ReadonlySet<string>;
}

const ARCHIVE = /^orgs\/([0-9a-f-]{36})\/backups\/[0-9a-f-]{36}\/[0-9a-f]+$/;
const OF_ORGANIZATION = /^orgs\/([0-9a-f-]{36})\//;

/** True for a key that `compareObjects` can find a difference in: all others need not be remembered. */
export function isJudged(key: string, erased: ReadonlySet<string>): boolean {
  return ARCHIVE.test(key) || erased.has(OF_ORGANIZATION.exec(key)?.[1] ?? '');
}

/**
 * The differences of the object store. `keys` are those that are judged; they were listed before the rows were read: a key is
 * noted before it gets content, so that what is listed without being noted never will be. `isThere` looks again.
 */
export async function compareObjects(
  { archives, erased }: ObjectIntent,
  keys: readonly string[],
  isThere: (key: string) => Promise<boolean>,
): Promise<Difference[]> {
  const noted = new Set(archives.map(({ key }) => key));
  const listed = new Set(keys);
  const found: Difference[] = [];
  for (const key of keys) {
    const orgId = OF_ORGANIZATION.exec(key)?.[1];
    if (orgId === undefined || noted.has(key)) continue;
    if (erased.has(orgId)) found.push({ kind: 'orphan_object', server: '', name: key, orgId });
    else if (ARCHIVE.test(key) && (await isThere(key))) {
      found.push({ kind: 'orphan_archive', server: '', name: key, orgId });
    }
  }
  for (const { key, orgId, schema, backupId, whole } of archives) {
    if (!whole || listed.has(key) || (await isThere(key))) continue;
    found.push({ kind: 'lost_archive', server: '', name: key, orgId, schema, backupId });
  }
  return found;
}

/** What becomes of a difference: removed or put right by a repair, or what somebody has to do. */
export function remedyOf({ kind, orgId, backupId }: Difference): { repairable: boolean; whatToDo: string } {
  switch (kind) {
    case 'lost_database':
      return {
        repairable: false,
        whatToDo: `restore it: mad backup list --org-id ${orgId}, then mad backup restore <backup> --yes`,
      };
    case 'lost_archive':
      return {
        repairable: false,
        whatToDo: `make another: mad backup create ${orgId}, then mad backup delete ${backupId}`,
      };
    case 'lost_role':
      return { repairable: true, whatToDo: 'a repair makes the login again, once the organization is resumed' };
    case 'lost_stock':
      return { repairable: true, whatToDo: 'a repair forgets it; another is made' };
    default:
      return { repairable: true, whatToDo: 'a repair removes it' };
  }
}
