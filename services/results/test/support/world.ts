import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { DescService, MessageInitShape } from '@bufbuild/protobuf';
import { createClient, type Client, type Transport } from '@connectrpc/connect';
import { createLeaseSigner, serviceTokenInterceptor } from '@mad/auth';
import type { MigrationClass } from '@mad/postgres';
import { createLogger, MINUTE_MS, uuidv7, type Logger, type Metrics } from '@mad/process';
import { CachePolicy } from '@mad/proto/catalog';
import { TenantState } from '@mad/proto/provisioner';
import {
  CacheService,
  ExecutionService,
  ExportService,
  JobRunService,
  JobStatisticsService,
  PoseService,
  type MaterializeJobRequestSchema,
  type AppendResultsRequestSchema,
  type AppendResultsResponse,
  type MaterializeJobResponse,
  type PlanArtifact,
  type StartExecutionResponse,
  type TaskPlan,
} from '@mad/proto/results';
import { grpcTransport, type GrpcTransport } from '@mad/rpc';
import { bearer, serviceToken, testCluster, testServiceKey, testServiceKeys, userToken } from '@mad/testing';
import { resultsMigrations, startResults, type RunningResults } from '../../src/index.ts';
import { columnsOf, type Outcome } from './columns.ts';
import { SERVER_ID, serveNeighbours, type Molecule, type Neighbourhood } from './neighbours.ts';
import { onServer, tenantDatabase, type TenantDatabase } from './tenant-database.ts';

/** What may be left out of a message, at its top level and in its lists. */
type Init<T> = Partial<Omit<T, '$typeName' | '$unknown' | Lists>>;
type Lists = 'artifacts';

export type Plan = Init<TaskPlan> & { artifacts?: Init<PlanArtifact>[] };

/** An organization with its database and a user who may read jobs. */
export interface Organization {
  orgId: string;
  database: TenantDatabase;
  token: string;
}

/** A job as catalog would ask for it. */
export interface JobOptions {
  jobId?: string;
  smiles?: string[];
  /** Instead of new molecules for `smiles`. */
  molecules?: Molecule[];
  plans?: Plan[];
  policy?: CachePolicy;
  minConfidence?: number;
  maxAgeS?: number;
  pipelineId?: string;
  /** What catalog announces; default: what it has. */
  inputCount?: number;
}

/** A task that gives scores between 0 and 1, higher is better, four items at a time. */
export function similarity(changes: Plan = {}): Plan {
  return {
    taskId: 'screen',
    task: 'rdkit.similarity',
    engine: 'rdkit@2026.09.1',
    recipe: 'none',
    cacheVersion: 1,
    deterministic: true,
    parameters: { reference: 'CCO' },
    chunkSize: 4,
    cores: 1,
    memoryMb: 256,
    scoreUnits: 'tanimoto',
    rdkitVersion: '2026.09.1',
    ...changes,
  };
}

/** A task that docks: poses, kcal/mol, lower is better. */
export function docking(changes: Plan = {}): Plan {
  return {
    ...similarity(),
    taskId: 'dock',
    task: 'vina.dock',
    engine: 'vina@1.2.3',
    parameters: { seed: 42, center_x: 1.5, receptor: 'artifact' },
    artifacts: [{ parameter: 'receptor', artifactId: uuidv7(), sha256: 'a'.repeat(64) }],
    scoreUnits: 'kcal/mol',
    lowerIsBetter: true,
    ...changes,
  };
}

export type BatchInit = MessageInitShape<typeof AppendResultsRequestSchema>;

/** Results on a socket, between neighbours on theirs, with real databases. */
export interface World {
  around: Neighbourhood;
  /** As catalog, as a worker: with their service tokens. */
  asCatalog: Client<typeof ExecutionService>;
  asWorker: Client<typeof ExecutionService>;
  jobRuns: Client<typeof JobRunService>;
  statistics: Client<typeof JobStatisticsService>;
  poses: Client<typeof PoseService>;
  exports: Client<typeof ExportService>;
  cache: Client<typeof CacheService>;
  /** For results in a process of its own, on the same databases and objects. */
  environment: Record<string, string>;
  /** Where objects are. */
  objectFolder: string;
  transport: Transport;
  /** A client under another service's name. */
  as<S extends DescService>(name: string, service: S): Client<S>;
  /** host:port of results' gRPC. */
  address(): string;
  /** host:port of its neighbours. */
  neighbours: string;
  /** With a database of these migrations; without, of the newest. */
  organization(migrations?: readonly MigrationClass[]): Promise<Organization>;
  materialize(org: Organization, options?: JobOptions): Promise<MaterializeJobResponse & { jobId: string }>;
  /** Starts an execution under a lease of this attempt. */
  start(org: Organization, id: string, attempt?: number): Promise<StartExecutionResponse>;
  /** Sends the attempt's next batch; returns how many items the execution has an outcome for. */
  append(org: Organization, id: string, outcomes: Outcome[], attempt?: number): Promise<number>;
  /** Sends batches as they are, in one stream. */
  stream(batches: Iterable<BatchInit> | AsyncIterable<BatchInit>): Promise<AppendResultsResponse>;
  finish(
    org: Organization,
    id: string,
    attempt?: number,
  ): ReturnType<Client<typeof ExecutionService>['finishExecution']>;
  /** Starts, appends what `outcome` makes of each item, finishes. */
  run(
    org: Organization,
    id: string,
    outcome: (smiles: string, itemNo: number) => Omit<Outcome, 'itemNo'> | undefined,
  ): Promise<void>;
  lease(
    org: Organization,
    id: string,
    attempt: number,
  ): Promise<{ orgId: string; taskExecutionId: string; attempt: number; leaseToken: string }>;
  /** Another process of results on the same databases; closed with the world. */
  another(): Promise<{ jobRuns: Client<typeof JobRunService> }>;
  /** Stops results and starts it again on the same databases. */
  restart(): Promise<void>;
  close(): Promise<void>;
}

const WORKER = 'worker-1';

/** Opens a world. With `redisUrl` its results uses Redis; `logger` gets what results logs. */
export async function openWorld({
  redisUrl,
  logger,
  cacheTtlDays,
  exportPartRows = 1000,
  retentionSliceRows = 10_000,
  statementTimeoutMs = MINUTE_MS,
  tenantInFlight = 256,
  metrics,
  objectStoreUrl,
}: {
  redisUrl?: string;
  logger?: Logger;
  cacheTtlDays?: number;
  exportPartRows?: number;
  retentionSliceRows?: number;
  statementTimeoutMs?: number;
  tenantInFlight?: number;
  metrics?: Metrics;
  /** Instead of `objectFolder`. */
  objectStoreUrl?: string;
} = {}): Promise<World> {
  const around: Neighbourhood = {
    routes: new Map(),
    inputs: new Map(),
    settled: [],
    refuseSettles: 0,
    cutInputsAfter: undefined,
    inputCalls: 0,
  };
  const neighbours = await serveNeighbours(around);
  const objectFolder = await mkdtemp(join(tmpdir(), 'mad-results-objects-'));
  const storeUrl = objectStoreUrl ?? pathToFileURL(objectFolder).href;
  const keys = await testServiceKeys(['identity', 'catalog', 'results', 'provisioner', 'worker']);
  const address = `127.0.0.1:${neighbours.port}`;
  const open = (): Promise<RunningResults> =>
    startResults(
      {
        host: '127.0.0.1',
        port: 0,
        provisionerAddress: address,
        catalogAddress: address,
        identityAddress: address,
        servicePrivateJwk: keys.private.results,
        serviceKeys: keys.public,
        tenantPoolMax: 4,
        tenantInFlight,
        tenantsOpen: 100,
        tenantIdleMs: MINUTE_MS,
        statementTimeoutMs,
        retentionEveryHours: 0,
        retentionGraceHours: 24,
        node: 'mad-results-test',
        exportPartRows,
        retentionSliceRows,
        objectStoreUrl: storeUrl,
        cacheTtlDays,
        ...(redisUrl === undefined ? {} : { redisUrl }),
      },
      { logger: logger ?? createLogger('results', { level: 'error' }), metrics },
    );
  let results = await open();
  const others: RunningResults[] = [];
  const signLease = createLeaseSigner((await testServiceKey('catalog')).privateJwk);
  const databases: TenantDatabase[] = [];
  let transports: GrpcTransport[] = [];

  const connect = (interceptor?: ReturnType<typeof serviceTokenInterceptor>, to = results): GrpcTransport => {
    const transport = grpcTransport(`127.0.0.1:${to.port}`, { interceptors: interceptor ? [interceptor] : [] });
    transports.push(transport);
    return transport;
  };
  const as = <S extends DescService>(name: string, service: S): Client<S> =>
    createClient(service, connect(serviceTokenInterceptor(() => serviceToken(name))));
  const clients = () => {
    const transport = connect();
    return {
      asCatalog: as('catalog', ExecutionService),
      asWorker: as('worker', ExecutionService),
      jobRuns: createClient(JobRunService, transport),
      statistics: createClient(JobStatisticsService, transport),
      poses: createClient(PoseService, transport),
      exports: createClient(ExportService, transport),
      cache: createClient(CacheService, transport),
      transport,
    };
  };
  const unitsOfEngine = new Map<string, string>();
  /** The unit each execution's scores are in, and the number of each attempt's next batch. */
  const units = new Map<string, string>();
  const nextBatch = new Map<string, number>();
  const lease: World['lease'] = async ({ orgId }, taskExecutionId, attempt) => ({
    orgId,
    taskExecutionId,
    attempt,
    leaseToken: await signLease(
      {
        orgId,
        taskExecutionId,
        attempt,
        worker: WORKER,
      },
      new Date(Date.now() + MINUTE_MS),
    ),
  });

  const world: World = {
    around,
    as,
    ...clients(),
    lease,
    objectFolder,
    environment: {
      PROVISIONER_ADDRESS: address,
      CATALOG_ADDRESS: address,
      IDENTITY_ADDRESS: address,
      RESULTS_SERVICE_KEY: JSON.stringify(keys.private.results),
      MAD_SERVICE_KEYS: JSON.stringify(keys.public),
      OBJECT_STORE_URL: storeUrl,
      RESULTS_EXPORT_PART_ROWS: String(exportPartRows),
      RESULTS_RETENTION_SLICE_ROWS: String(retentionSliceRows),
    },
    address: () => `127.0.0.1:${results.port}`,
    neighbours: address,
    async organization(migrations = resultsMigrations) {
      const orgId = uuidv7();
      const database = await tenantDatabase(migrations);
      databases.push(database);
      around.routes.set(orgId, {
        orgId,
        schema: 'results',
        state: TenantState.READY,
        generation: 1n,
        serverId: SERVER_ID,
        ...testCluster().place,
        database: database.name,
        user: database.user,
        password: database.password,
        connectionBudget: 20,
        schemaVersion: migrations.at(-1)!.migrationName,
        changeSeq: BigInt(around.routes.size + 1),
      });
      return {
        orgId,
        database,
        token: await userToken({
          orgId,
          permissions:
            'jobs.read cache.read cache.manage retention.read retention.manage exports.create exports.read exports.delete'.split(
              ' ',
            ),
        }),
      };
    },
    async materialize(org, options = {}) {
      const { jobId = uuidv7(), plans = [similarity()] } = options;
      const smiles = options.molecules?.map((one) => one.smiles) ??
        options.smiles ?? ['C', 'CC', 'CCC', 'CCCC', 'CCCCC'];
      for (const { engine = '', scoreUnits = '' } of plans) unitsOfEngine.set(engine, scoreUnits);
      const molecules: Molecule[] = options.molecules ?? smiles.map((one) => ({ moleculeId: uuidv7(), smiles: one }));
      if (!around.inputs.has(jobId)) around.inputs.set(jobId, molecules);
      const request: MessageInitShape<typeof MaterializeJobRequestSchema> = {
        orgId: org.orgId,
        jobId,
        pipelineVersionId: uuidv7(),
        tasks: plans,
        parameters: { reference: 'CCO' },
        inputCount: options.inputCount ?? smiles.length,
        cachePolicy: options.policy ?? CachePolicy.USE,
        minConfidence: options.minConfidence ?? 0,
        maxAgeS: options.maxAgeS ?? 0,
        createdBy: uuidv7(),
        pipelineId: options.pipelineId ?? '',
      };
      return Object.assign(await world.asCatalog.materializeJob(request), { jobId });
    },
    async start(org, id, attempt = 1) {
      const started = await world.asWorker.startExecution({ ...(await lease(org, id, attempt)), worker: WORKER });
      units.set(id, unitsOfEngine.get(started.engine) ?? '');
      return started;
    },
    async append(org, id, outcomes, attempt = 1) {
      const held = await lease(org, id, attempt);
      const key = `${id}/${attempt}`;
      const batch = nextBatch.get(key) ?? 1;
      const said = await world.stream([{ ...held, batch, ...columnsOf(outcomes, units.get(id) ?? '') }]);
      nextBatch.set(key, said.nextBatch);
      return said.received;
    },
    async stream(batches) {
      async function* messages() {
        yield* batches;
      }
      return world.asWorker.appendResults(messages());
    },
    finish: async (org, id, attempt = 1) =>
      world.asWorker.finishExecution({ ...(await lease(org, id, attempt)), metrics: { elapsed_ms: 5 } }),
    async run(org, id, outcome) {
      const { items } = await world.start(org, id);
      const outcomes = items.flatMap(({ itemNo, smiles }) => {
        const said = outcome(smiles, itemNo);
        return said === undefined ? [] : [{ itemNo, ...said }];
      });
      if (outcomes.length > 0) await world.append(org, id, outcomes);
      await world.finish(org, id);
    },
    async another() {
      const other = await open();
      others.push(other);
      return { jobRuns: createClient(JobRunService, connect(undefined, other)) };
    },
    async restart() {
      for (const transport of transports) transport.close();
      transports = [];
      await results.close();
      results = await open();
      Object.assign(world, clients());
    },
    async close() {
      for (const transport of transports) transport.close();
      for (const one of [results, ...others]) await one.close();
      await neighbours.close();
      for (const database of databases) await database.drop();
      await rm(objectFolder, { recursive: true, force: true });
    },
  };
  return world;
}

/** Rows of a tenant's database, seen by the superuser. */
export async function rows<R>(org: Organization, sql: string, params: unknown[] = []): Promise<R[]> {
  return onServer(org.database.adminUrl, async (client) => {
    await client.query('SET search_path = results, public');
    return (await client.query(sql, params)).rows as R[];
  });
}

export { bearer };
export type { Outcome } from './columns.ts';
