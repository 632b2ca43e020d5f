import { createMetrics, runMain } from '@mad/process';
import { readProvisionerConfig } from './config.ts';
import { startProvisioner } from './start.ts';

await runMain('provisioner', (logger) =>
  startProvisioner(readProvisionerConfig(process.env), {
    logger,
    metrics: createMetrics('provisioner', { process: true }),
  }),
);
