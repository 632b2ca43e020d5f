import { createLogger } from '@mad/process';
import { readMigrateConfig } from './config.ts';
import { migrateCatalog } from './database.ts';

const logger = createLogger('catalog');
const ran = await migrateCatalog({ ...readMigrateConfig(process.env), log: (message) => logger.info(message) });
logger.info({ migrations: ran.length }, 'schema catalog is up to date');
