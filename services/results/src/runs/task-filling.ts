import { hash } from 'node:crypto';
import type { JsonObject } from '@bufbuild/protobuf';
import { uuidv7 } from '@mad/process';
import type { TaskPlan } from '@mad/proto/results';
import type { TenantTx } from '@mad/tenancy';
import { readsCache, type CachePolicy, type Demand } from '../domain/cache-entry.ts';
import { noCounters, type Counters } from '../domain/counters.ts';
import { beginItem, chunkNo } from '../domain/materialize.ts';
import type { WorkStatus } from '../domain/work-item.ts';
import { lookUp, lookUpBeginnings, type Beginning, type LookedUp } from './cache.ts';
import { copyRows, uuidBytes, type CopyTarget, type CopyValue } from './copy.ts';
import type { Inputs } from './inputs.ts';
import { familyOf, signatureTextOf } from './plan.ts';

/** What catalog says of a new job. */
export interface NewJob {
  jobId: string;
  /** Undefined where catalog does not say. */
  pipelineId: string | undefined;
  pipelineVersionId: string;
  plans: TaskPlan[];
  parameters: JsonObject;
  policy: CachePolicy;
  /** What it asks of earlier results. */
  demand: Demand;
  createdBy: string;
}

/** Items decided, looked up and written at once: bounds memory, and how long the process is busy without a pause. */
const BATCH = 5000;

/** What ends when the job is made is told by the job's first event. */
const FIRST_EVENT = 1;

const ITEMS: CopyTarget = {
  table: 'task_results',
  columns: {
    job_id: 'uuid',
    task_id: 'text',
    item_no: 'int4',
    molecule_id: 'uuid',
    smiles: 'text',
    status: 'text',
    input_signature: 'text',
    task_execution_id: 'uuid',
    follows_item_no: 'int4',
    score: 'float8',
    result_data: 'jsonb',
    confidence_score: 'float8',
    error_class: 'text',
    error_message: 'text',
    reused_from_job_id: 'uuid',
    reused_from_task_id: 'text',
    reused_from_item_no: 'int4',
    service_name: 'text',
    ended_at: 'timestamptz',
    molecular_weight: 'float8',
    logp: 'float8',
    tpsa: 'float8',
    hbd: 'int2',
    hba: 'int2',
    rotatable_bonds: 'int2',
    cache_miss: 'text',
    molecule_name: 'text',
    ended_seq: 'int4',
    extends_job_id: 'uuid',
    extends_task_id: 'text',
    extends_item_no: 'int4',
  },
};

/** Makes the items of one task, batch by batch. */
export class TaskFilling {
  readonly counters: Counters = noCounters();
  readonly statuses: WorkStatus[] = [];
  /** Items of which some replicas are known. */
  toppedUp = 0;
  readonly #tx: TenantTx;
  readonly #job: NewJob;
  readonly #plan: TaskPlan;
  readonly #inputs: Inputs;
  readonly #upstream: WorkStatus[][];
  readonly #waits: boolean;
  readonly #now: Date;
  readonly #jobId: Uint8Array;
  /** The first item to be computed of each signature. */
  readonly #leaders = new Map<string, number>();
  /** Ids of the executions, chunk by chunk. */
  readonly #executions: string[] = [];
  #toRun = 0;

  constructor(
    tx: TenantTx,
    job: NewJob,
    plan: TaskPlan,
    around: { inputs: Inputs; upstream: WorkStatus[][]; waits: boolean; now: Date },
  ) {
    this.#tx = tx;
    this.#job = job;
    this.#plan = plan;
    this.#inputs = around.inputs;
    this.#upstream = around.upstream;
    this.#waits = around.waits;
    this.#now = around.now;
    this.#jobId = uuidBytes(job.jobId);
  }

  async run(onSignature: (signature: string) => void): Promise<void> {
    const { smiles } = this.#inputs;
    const textOf = signatureTextOf(this.#plan);
    for (let start = 0; start < smiles.length; start += BATCH) {
      const signatures = smiles.slice(start, start + BATCH).map((one) => hash('sha256', textOf(one)));
      signatures.forEach(onSignature);
      const found = readsCache(this.#job.policy)
        ? await lookUp(this.#tx, this.#plan.task, signatures, this.#job.demand)
        : undefined;
      const known = this.#executions.length;
      const beginnings = found && (await this.#beginnings(smiles.slice(start, start + BATCH), signatures, found));
      const rows = signatures.map((signature, index) =>
        this.#begin(start + index, signature, {
          found: found && (found.get(signature) ?? { miss: 'never_computed' }),
          beginning: beginnings?.[index],
        }),
      );
      await this.#insertExecutions(known);
      await copyRows(this.#tx, ITEMS, rows);
    }
  }

  /** For each molecule that no result answers: the one that holds its first replicas. */
  async #beginnings(
    smiles: readonly string[],
    signatures: readonly string[],
    found: ReadonlyMap<string, LookedUp>,
  ): Promise<(Beginning | undefined)[] | undefined> {
    const family = familyOf(this.#plan);
    if (family === undefined || family.replicas < 2 || this.#job.policy !== 'use') return undefined;
    const { replicas, textOf } = family;
    const families = smiles.map((one, index) =>
      found.get(signatures[index]!)?.hit === undefined ? hash('sha256', textOf(one)) : undefined,
    );
    const asked = families.filter((one) => one !== undefined);
    if (asked.length === 0) return undefined;
    const { demand } = this.#job;
    const known = await lookUpBeginnings(this.#tx, this.#plan.task, { families: asked, replicas, demand });
    return families.map((one) => (one === undefined ? undefined : known.get(one)));
  }

  /**
   * Decides one item; `index` is its place in the input, from 0; `found` what was looked up, if it was; `beginning` whose
   * replicas are its first.
   */
  #begin(
    index: number,
    signature: string,
    { found, beginning: known }: { found: LookedUp | undefined; beginning: Beginning | undefined },
  ): CopyValue[] {
    const itemNo = index + 1;
    const { policy } = this.#job;
    const upstream = this.#upstream.map((statuses) => statuses[index]!);
    const { hit, miss } = found ?? {};
    const beginning = beginItem({ policy, hit, miss, upstream, leader: this.#leaders.get(signature) });
    const { status } = beginning;
    this.statuses.push(status);
    this.counters.requested += 1;
    this.counters[status] += 1;
    const follows = status === 'pending' ? beginning.follows : undefined;
    const runs = status === 'pending' && follows === undefined;
    if (runs) this.#leaders.set(signature, itemNo);
    const extended = runs ? known : undefined;
    if (extended !== undefined) this.toppedUp += 1;
    const source = status === 'cached' ? beginning.source : undefined;
    const properties = this.#inputs.properties[index];
    return [
      this.#jobId,
      this.#plan.taskId,
      itemNo,
      this.#inputs.moleculeIds[index]!,
      this.#inputs.smiles[index]!,
      status,
      signature,
      runs ? this.#nextExecution() : null,
      follows ?? null,
      source?.score ?? null,
      source?.resultData ? JSON.stringify(source.resultData) : null,
      source?.confidence ?? null,
      status === 'failed' ? beginning.errorClass : '',
      status === 'failed' ? beginning.errorMessage : '',
      source?.jobId ?? null,
      source?.taskId ?? null,
      source?.itemNo ?? null,
      source?.serviceName ?? '',
      status === 'pending' ? null : this.#now,
      properties?.molecularWeight ?? null,
      properties?.logp ?? null,
      properties?.tpsa ?? null,
      properties?.hbd ?? null,
      properties?.hba ?? null,
      properties?.rotatableBonds ?? null,
      miss ?? null,
      this.#inputs.names[index]!,
      status === 'pending' ? null : FIRST_EVENT,
      extended?.jobId ?? null,
      extended?.taskId ?? null,
      extended?.itemNo ?? null,
    ];
  }

  /** The execution that runs the next item. */
  #nextExecution(): string {
    const chunk = chunkNo(this.#toRun, this.#plan.chunkSize);
    this.#toRun += 1;
    if (chunk > this.#executions.length) this.#executions.push(uuidv7());
    return this.#executions[chunk - 1]!;
  }

  async #insertExecutions(known: number): Promise<void> {
    const fresh = this.#executions.slice(known);
    if (fresh.length === 0) return;
    await this.#tx.execute(
      `INSERT INTO task_executions (task_execution_id, job_id, task_id, chunk_no, status, queued_at)
        SELECT id, $2, $3, $4 + place, $5::execution_status, CASE WHEN $5 = 'queued' THEN now() END
        FROM unnest($1::uuid[]) WITH ORDINALITY AS n (id, place)`,
      [fresh, this.#job.jobId, this.#plan.taskId, known, this.#waits ? 'blocked' : 'queued'],
    );
  }
}
