import { createMetrics, runMain } from '@mad/process';
import { readWorkerConfig } from './config.ts';
import { startWorker } from './start.ts';

await runMain('worker', (logger) =>
  startWorker(readWorkerConfig(process.env), { logger, metrics: createMetrics('worker', { process: true }) }),
);
