import { runMain } from '@mad/process';
import { readWorkerConfig } from './config.ts';
import { startWorker } from './start.ts';

await runMain('worker', (deps) => startWorker(readWorkerConfig(process.env), deps));
