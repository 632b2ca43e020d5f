export { readWorkerConfig, type WorkerConfig } from './config.ts';
export { startWorker, type RunningWorker, type WorkerDeps } from './start.ts';
