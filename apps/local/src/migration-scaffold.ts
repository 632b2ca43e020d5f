import { writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { catalogEntities, catalogMigrations } from '@mad/catalog';
import { identityEntities, identityMigrations } from '@mad/identity';
import { entityDifferences, type EntitySchema, type MigrationClass } from '@mad/postgres';
import { provisionerEntities, provisionerMigrations } from '@mad/provisioner';

/** A metadata schema's entities and trail, for scaffolding. */
const SCHEMAS: Record<string, { entities: readonly EntitySchema[]; migrations: readonly MigrationClass[] }> = {
  identity: { entities: identityEntities, migrations: identityMigrations },
  catalog: { entities: catalogEntities, migrations: catalogMigrations },
  provisioner: { entities: provisionerEntities, migrations: provisionerMigrations },
};

/** Where a service keeps its migrations. */
const folderOf = (service: string): string =>
  fileURLToPath(new URL(`../../../services/${service}/src/db/migrations/`, import.meta.url));

/**
 * Writes the next migration of a service from what its entities say beyond its migrations: the up SQL is a draft to
 * read, the down SQL is for the author. Answers the file. `url` is a metadata database at the newest version.
 */
export async function scaffoldMigration(url: string, service: string, name: string, now: Date): Promise<string> {
  const schema = SCHEMAS[service];
  if (!schema) throw new Error(`--service: one of ${Object.keys(SCHEMAS).join(', ')}`);
  if (!/^[a-z][a-z0-9_]{2,60}$/.test(name)) throw new Error('the name must be lower case words joined by underscores');
  const stamp = now
    .toISOString()
    .slice(0, 16)
    .replaceAll(/[-T:]/g, '_')
    .replace(/_(\d\d)$/, '$1');
  const queries = await entityDifferences({ url, schema: service, entities: schema.entities });
  const up = queries.map((query) => `    ${query.replaceAll('`', '\\`').replaceAll('${', '\\${')};`).join('\n');
  const file = `${folderOf(service)}${stamp}_${name}.ts`;
  const className = name
    .split('_')
    .map((word) => word.charAt(0).toUpperCase() + word.slice(1))
    .join('');
  const text = `import { defineMigration } from '@mad/postgres';

/** ${queries.length === 0 ? 'Entities and migrations agree: write what else shall change.' : 'Drafted from the entities: read it, and write the way back.'} */
export const ${className} = defineMigration(import.meta.url, {
  up: \`
${up}
  \`,
  down: \`
  \`,
});
`;
  await writeFile(file, text, { flag: 'wx' });
  return file;
}
