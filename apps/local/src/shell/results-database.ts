import { clientOptions, withClient } from '@mad/postgres';

/**
 * The name of an organization's results database, which this server must hold; `metadataUrl` is the superuser's. Throws
 * an error for people: no such organization, no database yet, one on another server.
 */
export async function resultsDatabaseOf(metadataUrl: string, slug: string): Promise<string> {
  return withClient({ ...clientOptions(metadataUrl), application_name: 'mad-shell' }, async (client) => {
    const { rows } = await client.query<{ database: string | null; server: string | null; here: boolean }>(
      `SELECT t.database_name AS database, s.name AS server,
         EXISTS (SELECT FROM pg_database d WHERE d.datname = t.database_name AND d.datallowconn) AS here
       FROM identity.organizations o
       LEFT JOIN provisioner.tenants t ON t.org_id = o.org_id AND t.schema = 'results'
       LEFT JOIN provisioner.database_servers s ON s.server_id = t.server_id
       WHERE o.slug = $1`,
      [slug],
    );
    const [found] = rows;
    if (!found) throw notFound(`no organization ${slug}`);
    if (found.database === null) throw notFound(`${slug} has no results database yet`);
    if (!found.here) {
      throw new Error(
        `${slug}'s database ${found.database} is not ready on this server; it belongs to ${found.server}`,
      );
    }
    return found.database;
  });
}

/** The command line's exit code for what is not there. */
const notFound = (message: string): Error => Object.assign(new Error(message), { exitCode: 3 });
