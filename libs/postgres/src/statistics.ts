import pg from 'pg';

/**
 * Lets a login see what the server counts: everybody's sessions, sizes and statements. The view of statements is made in the
 * connected database where the server has it; it answers only where `shared_preload_libraries` loads it.
 */
export async function readStatistics(client: pg.Client, login: string): Promise<void> {
  await client.query(`GRANT pg_read_all_stats TO ${pg.escapeIdentifier(login)}`);
  const { rowCount } = await client.query(`SELECT 1 FROM pg_available_extensions WHERE name = 'pg_stat_statements'`);
  if (rowCount) await client.query('CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA public');
}
