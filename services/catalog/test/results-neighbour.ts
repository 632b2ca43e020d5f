import type { MessageInitShape } from '@bufbuild/protobuf';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { accessInterceptor, serviceTransports } from '@mad/auth';
import { uuidv7 } from '@mad/process';
import {
  CacheMiss,
  JobService,
  JobState,
  QueueService,
  type JobProgressSchema,
  type RunnableTaskSchema,
} from '@mad/proto/catalog';
import { TenantService, TenantState } from '@mad/proto/provisioner';
import {
  CacheService,
  ExecutionService,
  JobRunService,
  StorageService,
  type MaterializeJobRequest,
  type PreviewLookUpsRequest,
  type TaskPlan,
} from '@mad/proto/results';
import { bind, notFound, rpcError, serveRpc, type GrpcTransport } from '@mad/rpc';
import { testObjectKeys, testServiceKeys, testServiceVerifier, testVerifier } from '@mad/testing';
import { silent } from './neighbours.ts';

/** A job as this small results keeps it: items are counted, not stored. */
export interface TestRun {
  request: MaterializeJobRequest;
  state: JobState;
  seq: number;
  scored: number;
  failed: number;
  cancelled: number;
  total: number;
  /** Items of each execution that has not ended. */
  open: Map<string, number>;
}

/** Small neighbours behind a real server that admits only catalog: results, and the provisioner. */
export interface TestResults {
  address: string;
  runs: Map<string, TestRun>;
  /** What catalog asked of the cache, in order. */
  lookUps: PreviewLookUpsRequest[];
  /** Method and id, in order. */
  calls: string[];
  /** What a method fails with, instead of doing anything; `after` fails it when it is done. */
  faults: Map<string, { error: ConnectError; times: number; after?: boolean }>;
  /** Organizations that have a database. */
  tenants: Set<string>;
  /** Whether everybody has one. */
  provisioned: boolean;
  /** Whether a job is described only when the caller has given up. */
  hangs: boolean;
  /** Ends an execution as a worker's results would, without telling catalog. */
  finish(jobId: string, taskExecutionId: string): MessageInitShape<typeof JobProgressSchema>;
  progress(jobId: string): MessageInitShape<typeof JobProgressSchema>;
  /** A client of catalog's under results' name. */
  catalog(port: number): { queue: ReturnType<typeof queueOf>; jobs: ReturnType<typeof jobsOf> };
  close(): Promise<void>;
}

const queueOf = (transport: GrpcTransport) => createClient(QueueService, transport);
const jobsOf = (transport: GrpcTransport) => createClient(JobService, transport);

/** A fault of a method that happens so often. */
export function fault(code: Code, reason?: Parameters<typeof rpcError>[1]): ConnectError {
  return reason ? rpcError(code, reason, 'as the test wants it') : new ConnectError('as the test wants it', code);
}

export async function startResults(): Promise<TestResults> {
  const runs: TestResults['runs'] = new Map();
  const calls: string[] = [];
  const lookUps: PreviewLookUpsRequest[] = [];
  const faults: TestResults['faults'] = new Map();
  const tenants = new Set<string>();
  const transports: { close(): void }[] = [];

  const progress = (jobId: string) => {
    const { state, seq, total, scored, failed, cancelled } = runs.get(jobId)!;
    const pending = total - scored - failed - cancelled;
    const counters = {
      requested: BigInt(total),
      scored: BigInt(scored),
      failed: BigInt(failed),
      cancelled: BigInt(cancelled),
      pending: BigInt(pending),
    };
    // A second and a half for each molecule.
    const coreMs = 1500n * BigInt(scored + failed);
    return { jobId, state, counters, eventSeq: BigInt(seq), detail: '', coreMs };
  };
  const runnable = (jobId: string): MessageInitShape<typeof RunnableTaskSchema>[] => {
    const { request, open } = runs.get(jobId)!;
    const { engine, cores, memoryMb } = request.tasks[0]!;
    return [...open.keys()].map((taskExecutionId) => ({ taskExecutionId, engine, cores, memoryMb }));
  };
  const end = (jobId: string, taskExecutionId: string, as: 'scored' | 'failed') => {
    const run = runs.get(jobId)!;
    run[as] += run.open.get(taskExecutionId) ?? 0;
    run.open.delete(taskExecutionId);
    run.seq += 1;
    if (run.state !== JobState.CANCELLED) {
      const ended = run.scored > 0 ? JobState.COMPLETED : JobState.FAILED;
      run.state = run.open.size > 0 ? JobState.RUNNING : ended;
    }
    return progress(jobId);
  };
  /** Runs a method once its fault is used up. */
  const call = <T>(method: string, id: string, orgId: string, fn: () => T): T => {
    calls.push(`${method} ${id}`);
    const set = faults.get(method);
    const fails = set !== undefined && set.times > 0;
    if (fails) {
      set.times -= 1;
      if (!set.after) throw set.error;
    }
    if (!results.provisioned && !tenants.has(orgId)) {
      throw rpcError(Code.FailedPrecondition, 'TENANT_NOT_PROVISIONED', 'no database');
    }
    const answer = fn();
    if (fails) throw set.error;
    return answer;
  };
  const jobOf = (taskExecutionId: string): string => {
    for (const [jobId, run] of runs) if (run.open.has(taskExecutionId)) return jobId;
    throw notFound('task execution', taskExecutionId);
  };

  const server = await serveRpc({
    service: 'results',
    host: '127.0.0.1',
    port: 0,
    logger: silent,
    interceptors: [
      accessInterceptor({ verifyUser: testVerifier(), verifyService: await testServiceVerifier(['catalog']) }),
    ],
    drainMs: 100,
    services: [
      testObjectKeys(),
      bind(ExecutionService, {
        materializeJob: (request) =>
          call('materialize', request.jobId, request.orgId, () => {
            const { jobId, tasks, inputCount } = request;
            if (!runs.has(jobId)) {
              const { chunkSize } = tasks[0]!;
              const open = new Map<string, number>();
              for (let done = 0; done < inputCount; done += chunkSize) {
                open.set(uuidv7(), Math.min(chunkSize, inputCount - done));
              }
              const counts = { scored: 0, failed: 0, cancelled: 0, total: inputCount };
              runs.set(jobId, { request, state: JobState.QUEUED, seq: 1, ...counts, open });
            }
            return { progress: progress(jobId), runnable: runnable(jobId) };
          }),
        failExecution: ({ orgId, taskExecutionId, attempt, errorClass }) =>
          call('fail', `${taskExecutionId} ${attempt} ${errorClass}`, orgId, () => {
            const jobId = jobOf(taskExecutionId);
            return { progress: end(jobId, taskExecutionId, 'failed'), runnable: [] };
          }),
        cancelJobRun: ({ orgId, jobId }) =>
          call('cancel', jobId, orgId, () => {
            const run = runs.get(jobId);
            if (!run) throw notFound('job', jobId);
            if (run.state !== JobState.COMPLETED && run.state !== JobState.FAILED) {
              run.cancelled = run.total - run.scored - run.failed;
              run.open.clear();
              run.state = JobState.CANCELLED;
              run.seq += 1;
            }
            return { progress: progress(jobId) };
          }),
        reconcileJob: ({ orgId, jobId }) =>
          call('reconcile', jobId, orgId, () =>
            runs.has(jobId)
              ? { materialized: true, progress: progress(jobId), runnable: runnable(jobId) }
              : { materialized: false },
          ),
      }),
      bind(CacheService, {
        // Keeps a result of every molecule with an even number of characters.
        previewLookUps: (request) =>
          call('preview', request.orgId, request.orgId, () => {
            lookUps.push(request);
            const missed = request.smiles.filter((smiles) => smiles.length % 2 === 1);
            const hits = BigInt(request.smiles.length - missed.length);
            const misses =
              missed.length === 0 ? [] : [{ miss: CacheMiss.NEVER_COMPUTED, items: BigInt(missed.length) }];
            return {
              tasks: request.tasks.map(({ taskId, task }) => ({ taskId, task, hits, misses })),
              explained: missed.slice(0, request.explain).map((smiles) => ({ smiles, miss: CacheMiss.NEVER_COMPUTED })),
            };
          }),
      }),
      bind(JobRunService, {
        async describeJobRun({ orgId, jobId }, { signal }) {
          if (results.hangs) await new Promise((resolve) => signal.addEventListener('abort', resolve));
          return call('describe', jobId, orgId, () => {
            const run = runs.get(jobId);
            if (!run) throw notFound('job', jobId);
            const { state, counters, eventSeq } = progress(jobId);
            const [{ taskId, task, engine, scoreUnits, lowerIsBetter }] = run.request.tasks as [TaskPlan];
            const tasks = [{ taskId, task, engine, counters, scoreUnits, lowerIsBetter }];
            return { jobRun: { jobId, state, counters, eventSeq, inputSignature: 'a'.repeat(64), tasks } };
          });
        },
      }),
      bind(StorageService, {
        describeStorage: ({ orgId }) =>
          call('storage', orgId, orgId, () => ({ stored: [{ purpose: 'poses', objects: 3n, sizeBytes: 4_500n }] })),
      }),
      bind(TenantService, {
        describeTenants: ({ orgId }) =>
          call('tenants', orgId, orgId, () => ({
            tenants: [{ tenant: { orgId, schema: 'results', state: TenantState.READY }, sizeBytes: 8_000_000n }],
          })),
        ensureTenant({ orgId, schema, region }) {
          calls.push(`ensure ${schema} ${region}`);
          tenants.add(orgId);
          return { tenant: { orgId, schema, state: TenantState.READY } };
        },
      }),
    ],
  });
  const keys = await testServiceKeys(['results']);
  const to = serviceTransports({ service: 'results', privateJwk: keys.private.results });
  const results: TestResults = {
    address: `127.0.0.1:${server.port}`,
    runs,
    lookUps,
    calls,
    faults,
    tenants,
    provisioned: true,
    hangs: false,
    finish: (jobId, taskExecutionId) => end(jobId, taskExecutionId, 'scored'),
    progress,
    catalog(port) {
      const transport = to(`127.0.0.1:${port}`);
      transports.push(transport);
      return { queue: queueOf(transport), jobs: jobsOf(transport) };
    },
    async close() {
      for (const transport of transports) transport.close();
      await server.close();
    },
  };
  return results;
}
