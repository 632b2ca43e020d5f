import type { JsonObject, MessageInitShape } from '@bufbuild/protobuf';
import type { Client } from '@connectrpc/connect';
import { uuidv7 } from '@mad/process';
import {
  JobService,
  MoleculeService,
  MoleculeSetService,
  PipelineService,
  QueueService,
  type CreateJobRequestSchema,
  type Job,
  type LeasedTask,
} from '@mad/proto/catalog';
import type { Organization } from '@mad/proto/identity';
import type { CatalogConfig } from '../src/index.ts';
import { startTestCatalog, type TestCatalog } from './harness.ts';
import { organization } from './neighbours.ts';
import { startResults, type TestResults } from './results-neighbour.ts';

/** An organization with a library, a published pipeline and someone who submits jobs. */
export interface Lab {
  orgId: string;
  jobs: Client<typeof JobService>;
  sets: Client<typeof MoleculeSetService>;
  pipelines: Client<typeof PipelineService>;
  /** Sealed, three molecules. */
  moleculeSetId: string;
  moleculeIds: string[];
  pipelineId: string;
  /** A request for a job, with something else where a test wants it. */
  request(change?: MessageInitShape<typeof CreateJobRequestSchema>): MessageInitShape<typeof CreateJobRequestSchema>;
  submit(change?: MessageInitShape<typeof CreateJobRequestSchema>): Promise<Job>;
  job(jobId: string): Promise<Job>;
}

/** Catalog between an identity, a results and a provisioner, and a worker. */
export interface JobWorld {
  catalog: TestCatalog;
  results: TestResults;
  worker: Client<typeof QueueService>;
  lab(quotas?: Partial<Organization['quotas'] & object>): Promise<Lab>;
  /** Leases everything there is, for a worker with room for it; returns this job's tasks. */
  lease(jobId: string): Promise<LeasedTask[]>;
  /** Every engine there is. */
  engines(): Promise<string[]>;
  /** Ends a leased task at results and settles it. */
  settle(task: LeasedTask): Promise<boolean>;
  close(): Promise<void>;
}

export const SMILES = ['CCO', 'CCCO', 'CCCCO'];
export const REFERENCE: JsonObject = { reference: 'CCN' };

/** Ranks by similarity to a reference that the job gives. */
export const SPEC = {
  version: '1',
  parameters: { reference: { type: 'string', format: 'smiles' } },
  tasks: [
    {
      id: 'rank',
      task: 'rdkit.similarity',
      inputs: { molecules: 'job.molecules' },
      parameters: { reference: '${reference}' },
    },
  ],
};

/** Asks until the answer is no longer undefined; fails after ten seconds. */
export async function eventually<T>(what: string, ask: () => Promise<T | undefined>): Promise<T> {
  const end = Date.now() + 10_000;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (Date.now() > end) throw new Error(`did not happen: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export async function startJobWorld(config: Partial<CatalogConfig> = {}): Promise<JobWorld> {
  const results = await startResults();
  const catalog = await startTestCatalog({
    config: { resultsAddress: results.address, provisionerAddress: results.address, ...config },
  });
  const worker = await catalog.service(QueueService, 'worker');
  const asResults = results.catalog(catalog.running.port);

  async function engines(): Promise<string[]> {
    const sql = 'SELECT DISTINCT engine FROM catalog.task_definitions';
    const { rows } = await catalog.admin.query<{ engine: string }>(sql);
    return rows.map(({ engine }) => engine);
  }

  async function lab(quotas: Partial<Organization['quotas'] & object> = {}): Promise<Lab> {
    const one = organization({ slug: `lab-${uuidv7().slice(-12)}` });
    Object.assign(one.quotas!, quotas);
    catalog.identity.organizations.set(one.orgId, one);
    const { orgId } = one;
    const by = () => ({ orgId, requestId: uuidv7() });
    const sets = await catalog.member(MoleculeSetService, one);
    const molecules = await catalog.member(MoleculeService, one);
    const pipelines = await catalog.member(PipelineService, one);
    const jobs = await catalog.member(JobService, one);
    const { moleculeSet } = await sets.createMoleculeSet({ ...by(), name: 'library' });
    const { moleculeSetId } = moleculeSet!;
    const rows = SMILES.map((smiles) => ({ smiles, name: smiles }));
    const { registered } = await molecules.registerMolecules({ ...by(), moleculeSetId, rows });
    await sets.sealMoleculeSet({ orgId, moleculeSetId });
    const { pipeline } = await pipelines.createPipeline({ ...by(), name: 'screening' });
    const { pipelineId } = pipeline!;
    await pipelines.createPipelineVersion({ ...by(), pipelineId, spec: SPEC });
    await pipelines.publishPipelineVersion({ ...by(), pipelineId, version: 1 });
    const request: Lab['request'] = (change = {}) => {
      return { ...by(), pipelineId, moleculeSetId, parameters: REFERENCE, ...change };
    };
    return {
      orgId,
      jobs,
      sets,
      pipelines,
      moleculeSetId,
      moleculeIds: registered.map(({ moleculeId }) => moleculeId),
      pipelineId,
      request,
      submit: async (change) => (await jobs.createJob(request(change))).job!,
      job: async (jobId) => (await jobs.getJob({ orgId, jobId })).job!,
    };
  }

  return {
    catalog,
    results,
    worker,
    lab,
    engines,
    async lease(jobId) {
      const room = { maxTasks: 100, freeCores: 1_024, freeMemoryMb: 1_000_000 };
      const { tasks } = await worker.leaseTasks({ worker: 'w1', engines: await engines(), ...room });
      return tasks.filter((task) => task.jobId === jobId);
    },
    async settle({ orgId, jobId, taskExecutionId }) {
      const progress = results.finish(jobId, taskExecutionId);
      return (await asResults.queue.settleTask({ orgId, taskExecutionId, progress, runnable: [] })).applied;
    },
    async close() {
      await catalog.close();
      await results.close();
    },
  };
}
