/** With a longer one the login's name would pass Postgres's 63 bytes. */
export const MAX_SCHEMA_LENGTH = 24;

export type Slot = 'a' | 'b';

function bare(orgId: string): string {
  const digits = orgId.replaceAll('-', '').toLowerCase();
  if (!/^[0-9a-f]{32}$/.test(digits)) throw new TypeError('not an id');
  return digits;
}

/** The organization's database, e.g. `mad_results_0190…`. */
export function databaseName(schema: string, orgId: string): string {
  return `mad_${schema}_${bare(orgId)}`;
}

/** Whose database this is; undefined for one that is no organization's (a template, the metadata). */
export function ownerOfDatabase(name: string): { schema: string; orgId: string } | undefined {
  const match = /^mad_([a-z][a-z0-9_]*)_([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})$/.exec(name);
  return match ? { schema: match[1]!, orgId: match.slice(2).join('-') } : undefined;
}

/** One of the two logins of an organization's database. */
export function loginName(schema: string, orgId: string, slot: Slot): string {
  return `${databaseName(schema, orgId)}_${slot}`;
}

const STOCK_DIGITS = 16;

/** A database that waits for an organization, by some random digits. */
export function stockName(schema: string, digits: string): string {
  return `mad_${schema}_stock_${digits.slice(0, STOCK_DIGITS)}`;
}

/** The last digits of an id, which are its random ones. */
function digitsOf(id: string): string {
  return bare(id).slice(-STOCK_DIGITS);
}

/** The database an operation restores an archive into. */
export function copyName(schema: string, operationId: string): string {
  return `mad_${schema}_copy_${digitsOf(operationId)}`;
}

/** Where tables of archives are laid, beside the schema that the organization works in. */
export const BESIDE_SCHEMA = 'restored';

const BESIDE_DIGITS = 8;

/** The table an operation lays a table of an archive into. */
export function besideName(table: string, operationId: string): string {
  return `${table.slice(0, 62 - BESIDE_DIGITS)}_${digitsOf(operationId).slice(-BESIDE_DIGITS)}`;
}

/** The database a restore took the place of, from then on. */
export function replacedName(schema: string, operationId: string): string {
  return `mad_${schema}_old_${digitsOf(operationId)}`;
}

/** What sends a database's changes to another server while it is moved there: publication, slot, subscription and login. */
export function streamName(schema: string, operationId: string): string {
  return `mad_${schema}_move_${digitsOf(operationId)}`;
}

/** The role that owns the objects inside every database of the schema. */
export function schemaOwner(schema: string): string {
  return `mad_${schema}_owner`;
}

/** The role that holds the grants inside every database of the schema. */
export function schemaApp(schema: string): string {
  return `mad_${schema}_app`;
}

/** The role that logins of a read-only database hold in the place of the other. */
export function schemaReader(schema: string): string {
  return `mad_${schema}_reader`;
}

/** One migration of a schema, as its owner lists it. */
export interface ListedMigration {
  name: string;
  checksum: string;
}

/** The version a list of migrations leads to: its last one's name, empty when there is none. */
export function versionOf(migrations: readonly Pick<ListedMigration, 'name'>[]): string {
  return migrations.at(-1)?.name ?? '';
}

/** What two lists of migrations must agree in to make the same database. */
export function migrationsText(migrations: readonly ListedMigration[]): string {
  return migrations.map(({ name, checksum }) => `${name}:${checksum}`).join('\n');
}

const DIGEST_DIGITS = 16;

/**
 * The template that the schema's databases are copied from, by the SHA-256 of its migrations' text: a changed migration
 * makes another name, so that a template never differs from what its name says.
 */
export function templateName(schema: string, digest: string): string {
  return `mad_${schema}_template_${digest.slice(0, DIGEST_DIGITS)}`;
}

/** The database that is made, read and dropped to know what a list of migrations makes. */
export function referenceName(schema: string, digest: string): string {
  return `mad_${schema}_reference_${digest.slice(0, DIGEST_DIGITS)}`;
}
