import { create, type JsonObject, type MessageInitShape } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { createClient, type ConnectError } from '@connectrpc/connect';
import { accessInterceptor, serviceTransports } from '@mad/auth';
import { MINUTE_MS, createLogger, uuidv7 } from '@mad/process';
import {
  ArtifactService,
  QueueService,
  type HeldLease,
  type LeaseTasksRequest,
  type LeasedTaskSchema,
} from '@mad/proto/catalog';
import {
  ExecutionService,
  type AppendResultsRequest,
  type FinishExecutionRequest,
  StartExecutionResponseSchema,
  type StartExecutionRequest,
} from '@mad/proto/results';
import { bind, serveRpc } from '@mad/rpc';
import { testServiceKey, testServiceVerifier, testVerifier } from '@mad/testing';
import type { WorkerConfig } from '../src/config.ts';
import type { WorkerContext } from '../src/context.ts';
import type { Engine } from '../src/engines/engine.ts';

export const silent = createLogger('test', { level: 'silent' });

/** A task as the test's catalog leases it and its results describes it. */
export interface PlannedTask {
  orgId: string;
  taskExecutionId: string;
  attempt: number;
  engine: string;
  cores: number;
  memoryMb: number;
  task: string;
  parameters: JsonObject;
  smiles: string[];
  artifacts: { parameter: string; artifactId: string; sha256: string }[];
  /** How long its lease and each extension last. */
  leaseMs: number;
  alreadyFinished: boolean;
}

/** A task of one molecule on the engine `rdkit@1`, changed as told. */
export function planned(changes: Partial<PlannedTask> = {}): PlannedTask {
  return {
    orgId: uuidv7(),
    taskExecutionId: uuidv7(),
    attempt: 1,
    engine: 'rdkit@1',
    cores: 1,
    memoryMb: 100,
    task: 'rdkit.properties',
    parameters: {},
    smiles: ['CCO'],
    artifacts: [],
    leaseMs: MINUTE_MS,
    alreadyFinished: false,
    ...changes,
  };
}

type Method = 'leaseTasks' | 'heartbeatTasks' | 'startExecution' | 'appendResults' | 'finishExecution';

/** One item's outcome, out of its columns. */
export interface ToldOutcome {
  itemNo: number;
  score?: number | undefined;
  resultData?: unknown;
  errorClass: string;
  errorMessage: string;
}

function outcomesIn({ scored, failed }: AppendResultsRequest): ToldOutcome[] {
  return [
    ...(scored?.itemNo ?? []).map((itemNo, row) => ({
      itemNo,
      score: scored!.score[row],
      resultData: JSON.parse(scored!.resultData[row]!) as unknown,
      errorClass: '',
      errorMessage: '',
    })),
    ...(failed?.itemNo ?? []).map((itemNo, row) => ({
      itemNo,
      errorClass: failed!.errorClass[row]!,
      errorMessage: failed!.errorMessage[row]!,
    })),
  ];
}

/** A small catalog and a small results behind one real server: they lease what they are given and note what they are told. */
export interface Neighbours {
  address: string;
  /** Tasks nobody has leased yet. */
  waiting: PlannedTask[];
  /** When true, everything waiting is leased, whatever the worker says is free. */
  overlease: boolean;
  /** Task executions the next heartbeats name to be stopped. */
  stop: Set<string>;
  /** Errors to answer with, the next first. */
  failures: Record<Method, ConnectError[]>;
  contents: Map<string, string>;
  leased: LeaseTasksRequest[];
  heartbeats: HeldLease[];
  returned: { taskExecutionId: string; attempt: number; delayMs: number }[];
  started: StartExecutionRequest[];
  appended: AppendResultsRequest[];
  /** The number of every batch that came, repeats too. */
  batchNumbers: number[];
  /** When true, a batch is kept before its call fails: the answer is what gets lost. */
  keepBeforeFailing: boolean;
  finished: FinishExecutionRequest[];
  /** All outcomes it was told, in columns or not. */
  outcomes(): ToldOutcome[];
  close(): Promise<void>;
}

/**
 * Starts the neighbours of a worker; they let in services by their tokens, as the real ones do. `readMaxBytes`: the largest
 * message they take, when it is not the usual one.
 */
export async function startNeighbours(readMaxBytes?: number): Promise<Neighbours> {
  const tasks = new Map<string, PlannedTask>();
  const expected = new Map<string, number>();
  let renewals = 0;
  const neighbours: Omit<Neighbours, 'address' | 'close'> = {
    waiting: [],
    overlease: false,
    stop: new Set(),
    failures: { leaseTasks: [], heartbeatTasks: [], startExecution: [], appendResults: [], finishExecution: [] },
    contents: new Map(),
    leased: [],
    heartbeats: [],
    returned: [],
    started: [],
    appended: [],
    batchNumbers: [],
    keepBeforeFailing: false,
    finished: [],
    outcomes: () => neighbours.appended.flatMap(outcomesIn),
  };
  const failOnce = (method: Method) => {
    const failure = neighbours.failures[method].shift();
    if (failure) throw failure;
  };
  const lease = (task: PlannedTask, leaseToken: string): MessageInitShape<typeof LeasedTaskSchema> => {
    const { orgId, taskExecutionId, attempt, engine, cores, memoryMb, leaseMs } = task;
    const leaseExpireTime = timestampFromMs(Date.now() + leaseMs);
    return { orgId, jobId: uuidv7(), taskExecutionId, attempt, engine, cores, memoryMb, leaseToken, leaseExpireTime };
  };
  const server = await serveRpc({
    service: 'neighbours',
    host: '127.0.0.1',
    port: 0,
    drainMs: 0,
    ...(readMaxBytes === undefined ? {} : { readMaxBytes }),
    logger: silent,
    interceptors: [
      accessInterceptor({ verifyUser: testVerifier(), verifyService: await testServiceVerifier(['worker']) }),
    ],
    services: [
      bind(QueueService, {
        async leaseTasks(request, { signal }) {
          failOnce('leaseTasks');
          neighbours.leased.push(request);
          const deadline = Date.now() + request.waitMs;
          const taken: PlannedTask[] = [];
          while (taken.length === 0 && Date.now() < deadline && !signal.aborted) {
            let { freeCores, freeMemoryMb } = request;
            for (const task of neighbours.waiting.slice()) {
              freeCores -= task.cores;
              freeMemoryMb -= task.memoryMb;
              if (!neighbours.overlease && (freeCores < 0 || freeMemoryMb < 0)) break;
              neighbours.waiting.splice(neighbours.waiting.indexOf(task), 1);
              tasks.set(task.taskExecutionId, task);
              taken.push(task);
            }
            if (taken.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
          }
          return { tasks: taken.map((task) => lease(task, 'lease 0')) };
        },
        heartbeatTasks({ leases }) {
          neighbours.heartbeats.push(...leases);
          failOnce('heartbeatTasks');
          renewals += 1;
          const named = leases.map(({ taskExecutionId }) => taskExecutionId);
          const live = named.filter((id) => !neighbours.stop.has(id));
          return {
            extended: live.map((id) => lease(tasks.get(id)!, `lease ${renewals}`)),
            stop: named.filter((id) => neighbours.stop.has(id)),
          };
        },
        returnTasks({ leases, delayMs }) {
          for (const { taskExecutionId, attempt } of leases) {
            neighbours.returned.push({ taskExecutionId, attempt, delayMs });
          }
          return {};
        },
      }),
      bind(ArtifactService, {
        readArtifact: ({ artifactId }) => ({ content: Buffer.from(neighbours.contents.get(artifactId) ?? '') }),
      }),
      bind(ExecutionService, {
        startExecution(request) {
          failOnce('startExecution');
          neighbours.started.push(request);
          const { alreadyFinished, task, engine, parameters, artifacts, smiles } = tasks.get(request.taskExecutionId)!;
          const items = smiles.map((text, index) => ({ itemNo: index + 1, moleculeId: uuidv7(), smiles: text }));
          return create(StartExecutionResponseSchema, {
            alreadyFinished,
            task,
            engine,
            parameters,
            artifacts,
            items,
            nextBatch: 1,
          });
        },
        async appendResults(requests) {
          let nextBatch = 1;
          for await (const request of requests) {
            const key = `${request.taskExecutionId}/${request.attempt}`;
            const next = expected.get(key) ?? 1;
            if (!neighbours.keepBeforeFailing) failOnce('appendResults');
            neighbours.batchNumbers.push(request.batch);
            if (request.batch === next) {
              neighbours.appended.push(request);
              expected.set(key, next + 1);
            }
            nextBatch = expected.get(key) ?? 1;
            failOnce('appendResults');
          }
          return { received: neighbours.outcomes().length, nextBatch };
        },
        finishExecution(request) {
          failOnce('finishExecution');
          neighbours.finished.push(request);
          return {};
        },
      }),
    ],
  });
  return Object.assign(neighbours, { address: `127.0.0.1:${server.port}`, close: () => server.close() });
}

/** A worker's configuration for these neighbours: two cores, quick heartbeats, no Vina. */
export async function configFor(address: string, changes: Partial<WorkerConfig> = {}): Promise<WorkerConfig> {
  return {
    name: 'test-worker',
    resources: { cores: 2, memoryMb: 1_000 },
    catalogAddress: address,
    resultsAddress: address,
    servicePrivateJwk: (await testServiceKey('worker')).privateJwk,
    heartbeatMs: 50,
    chemistryThreads: 1,
    searchPath: '/nonexistent',
    ...changes,
  };
}

/** What a loop reaches when it runs the test's own engine instead of a real one. */
export async function contextFor(config: WorkerConfig, engine: Engine): Promise<WorkerContext & { close(): void }> {
  const to = serviceTransports({ service: 'worker', privateJwk: config.servicePrivateJwk });
  const transport = to(config.catalogAddress);
  return {
    config,
    engines: new Map([[`${engine.name}@1`, engine]]),
    queue: createClient(QueueService, transport),
    artifacts: createClient(ArtifactService, transport),
    executions: createClient(ExecutionService, transport),
    logger: silent,
    close: () => transport.close(),
  };
}
