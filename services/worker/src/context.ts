import type { Client } from '@connectrpc/connect';
import type { ServiceDeps } from '@mad/process';
import type { ArtifactService, QueueService } from '@mad/proto/catalog';
import type { ExecutionService } from '@mad/proto/results';
import type { WorkerConfig } from './config.ts';
import type { Engine } from './engines/engine.ts';

/** What a worker's parts may reach. */
export interface WorkerContext extends ServiceDeps {
  config: WorkerConfig;
  /** The engines this machine can run, by `name@version`. */
  engines: ReadonlyMap<string, Engine>;
  queue: Client<typeof QueueService>;
  artifacts: Client<typeof ArtifactService>;
  executions: Client<typeof ExecutionService>;
}
