import { createLogger } from '@mad/process';
import { readMigrateConfig } from './config.ts';
import { migrateIdentity } from './database.ts';

const logger = createLogger('identity');
const ran = await migrateIdentity({ ...readMigrateConfig(process.env), log: (message) => logger.info(message) });
logger.info({ migrations: ran.length }, 'schema identity is up to date');
