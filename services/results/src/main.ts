import { createMetrics, runMain } from '@mad/process';
import { readResultsConfig } from './config.ts';
import { startResults } from './start.ts';

await runMain('results', (logger) =>
  startResults(readResultsConfig(process.env), { logger, metrics: createMetrics('results', { process: true }) }),
);
