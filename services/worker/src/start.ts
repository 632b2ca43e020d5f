import { createClient } from '@connectrpc/connect';
import { serviceTransports } from '@mad/auth';
import { openChemistry } from '@mad/chemistry';
import { serveMetrics, type Logger, type ServiceDeps } from '@mad/process';
import { ArtifactService, QueueService } from '@mad/proto/catalog';
import { ExecutionService } from '@mad/proto/results';
import type { WorkerConfig } from './config.ts';
import type { WorkerContext } from './context.ts';
import type { Engine } from './engines/engine.ts';
import { createRdkitEngine } from './engines/rdkit-engine.ts';
import { createVinaEngine } from './engines/vina-engine.ts';
import { leaseLoop } from './lease-loop.ts';

/** A worker, leasing. */
export interface RunningWorker {
  /** The engines it leases for, e.g. `rdkit@2026.09.1`. */
  engines: string[];
  close(): Promise<void>;
}

/** Starts a worker: finds the engines this machine can run and leases tasks for them. */
export async function startWorker(config: WorkerConfig, deps: ServiceDeps): Promise<RunningWorker> {
  const { logger, metrics } = deps;
  const chemistry = openChemistry({ workers: config.chemistryThreads });
  const all = [createRdkitEngine(chemistry), createVinaEngine({ searchPath: config.searchPath })];
  const to = serviceTransports({ service: 'worker', privateJwk: config.servicePrivateJwk });
  const catalog = to(config.catalogAddress);
  const results = to(config.resultsAddress);
  const engines = await availableEngines(all, logger);
  const context: WorkerContext = {
    config,
    engines,
    queue: createClient(QueueService, catalog),
    artifacts: createClient(ArtifactService, catalog),
    executions: createClient(ExecutionService, results),
    ...deps,
  };
  const names = [...engines.keys()];
  logger.info({ worker: config.name, engines: names, ...config.resources }, 'worker leases tasks');
  const shown = metrics && config.metrics && (await serveMetrics(metrics, config.metrics.host, config.metrics.port));
  const loop = leaseLoop(context);
  return {
    engines: names,
    async close() {
      await loop.close();
      await shown?.close();
      for (const engine of all) await engine.close();
      await chemistry.close();
      catalog.close();
      results.close();
    },
  };
}

/** The engines this machine can run, by `name@version`; of each other the log says why not. */
async function availableEngines(all: readonly Engine[], logger: Logger): Promise<Map<string, Engine>> {
  const found = new Map<string, Engine>();
  for (const engine of all) {
    const state = await engine.available();
    if (state.ok) found.set(`${engine.name}@${await engine.version()}`, engine);
    else logger.info({ engine: engine.name, reason: state.reason }, 'engine not available');
  }
  return found;
}
