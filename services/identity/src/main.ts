import { createMetrics, runMain } from '@mad/process';
import { readIdentityConfig } from './config.ts';
import { startIdentity } from './start.ts';

await runMain('identity', (logger) =>
  startIdentity(readIdentityConfig(process.env), { logger, metrics: createMetrics('identity', { process: true }) }),
);
