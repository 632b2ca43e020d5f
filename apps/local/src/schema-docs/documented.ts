import { resultsMigrations } from '@mad/results';
import { clientOptions, migrate, ownerRole, withClient } from '@mad/postgres';
import pg from 'pg';
import { indexPage, schemaPage, type DocumentedSchema } from './pages.ts';
import { readSchema } from './read-schema.ts';

const METADATA: Record<string, string> = {
  identity: 'Organizations, people, roles, sessions, tokens, the audit chain. Owner: identity.',
  catalog: "Molecules, artifacts, pipelines, jobs' light records, the fair queue. Owner: catalog.",
  provisioner: 'Servers, tenants, their credentials and routes, operations. Owner: provisioner.',
};
const RESULTS = 'What jobs computed: work items, poses, events, the cache of results. Owner: results.';

/** Makes an organization's database as far as its tables go: what the trail of results makes, owned by its owner. */
export async function makeResultsDatabase(
  { adminUrl, migratorUrl }: { adminUrl: string; migratorUrl: string },
  database: string,
): Promise<void> {
  const to = (url: string, name: string): string => {
    const target = new URL(url);
    target.pathname = `/${name}`;
    return target.href;
  };
  const asAdmin = async (url: string, sql: string): Promise<void> => {
    await withClient({ ...clientOptions(url), application_name: 'mad-schema-docs' }, (client) => client.query(sql));
  };
  const owner = ownerRole('results');
  await asAdmin(adminUrl, `CREATE DATABASE ${pg.escapeIdentifier(database)} TEMPLATE template0 STRATEGY WAL_LOG`);
  await asAdmin(to(adminUrl, database), `CREATE SCHEMA results AUTHORIZATION ${owner}`);
  const url = to(migratorUrl, database);
  await migrate({ url, ownerRole: owner, schema: 'results', migrations: resultsMigrations });
}

/** The pages by file name, from a migrated metadata database and a migrated organization's. Equal schemas, equal pages. */
export async function schemaPages(urls: { metadata: string; results: string }): Promise<Map<string, string>> {
  const schemas: DocumentedSchema[] = [];
  for (const [name, about] of Object.entries(METADATA)) {
    schemas.push({ model: await readSchema(urls.metadata, name), place: 'metadata', about });
  }
  schemas.push({ model: await readSchema(urls.results, 'results'), place: 'organization', about: RESULTS });
  return new Map([
    ['README.md', indexPage(schemas)],
    ...schemas.map((one): [string, string] => [`${one.model.name}.md`, schemaPage(one)]),
  ]);
}
