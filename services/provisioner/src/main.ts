import { createMetrics, runMain } from '@mad/process';
import { readProvisionerConfig } from './config.ts';
import { startProvisioner } from './start.ts';

await runMain('provisioner', (logger) => {
  const config = readProvisionerConfig(process.env);
  logger.level = config.logLevel;
  return startProvisioner(config, { logger, metrics: createMetrics('provisioner', { process: true }) });
});
