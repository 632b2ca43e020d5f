import { createMetrics, runMain } from '@mad/process';
import { readCatalogConfig } from './config.ts';
import { startCatalog } from './start.ts';

await runMain('catalog', (logger) =>
  startCatalog(readCatalogConfig(process.env), { logger, metrics: createMetrics('catalog', { process: true }) }),
);
