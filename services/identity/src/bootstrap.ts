import { createLogger } from '@mad/process';
import { ensureFirstAdministrator } from './administrator.ts';
import { readAdministratorConfig } from './config.ts';
import { openIdentityDatabase } from './database.ts';

const logger = createLogger('identity');
const { databaseUrl, systemUrl, email, password } = readAdministratorConfig(process.env);
const database = await openIdentityDatabase({ url: databaseUrl, systemUrl }, logger);
try {
  const { userId, created } = await ensureFirstAdministrator(database, { email, password });
  logger.info({ user_id: userId, created }, created ? 'made the first administrator' : 'there is an administrator');
} finally {
  await database.close();
}
