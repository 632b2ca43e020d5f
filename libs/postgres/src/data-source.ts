import pg from 'pg';
import { DataSource, type EntitySchema, type Logger } from 'typeorm';
import type { MigrationClass } from './migration.ts';

const nothing = (): void => undefined;

/** TypeORM writes some things to the console whatever `logging` says. What fails is thrown, and statements are ours to log. */
const silentLogger: Logger = {
  logQuery: nothing,
  logQueryError: nothing,
  logQuerySlow: nothing,
  logSchemaBuild: nothing,
  logMigration: nothing,
  log: nothing,
};

/**
 * TypeORM over a pool of ours: entities and SQL share its connections, its cap and its checks. Destroying the data
 * source ends the pool.
 */
export async function openDataSource(
  pool: pg.Pool,
  options: { schema: string; entities?: readonly EntitySchema[]; migrations?: readonly MigrationClass[] },
): Promise<DataSource> {
  const dataSource = new DataSource({
    type: 'postgres',
    // TypeORM makes its pool with `new driver.Pool(…)`; a constructor may answer with an object that exists.
    driver: {
      ...pg,
      Pool: function Pool() {
        return pool;
      },
    },
    schema: options.schema,
    entities: [...(options.entities ?? [])],
    migrations: [...(options.migrations ?? [])],
    migrationsTableName: 'migrations',
    synchronize: false,
    migrationsRun: false,
    installExtensions: false,
    logger: silentLogger,
  });
  return dataSource.initialize();
}
