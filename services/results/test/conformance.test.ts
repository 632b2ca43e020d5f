import { afterAll, beforeAll, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { CachePolicy, JobState, type JobProgress } from '@mad/proto/catalog';
import { columnsOf } from './support/columns.ts';
import { failureOf } from './support/errors.ts';
import { driftOf } from './support/drift.ts';
import { openWorld, rows, similarity, type Organization, type World } from './support/world.ts';
import { TenantModel, type Answer, type ModelJob, type Progress } from './model/tenant-model.ts';

/**
 * The service does what the model does: random sequences of commands run against both, a real database on one side, and
 * every answer and every row must agree. The model's own invariants are in protocol.test.ts.
 */

let world: World;

beforeAll(async () => {
  world = await openWorld();
});

afterAll(() => world.close());

const POLICIES = {
  use: CachePolicy.USE,
  refresh: CachePolicy.REFRESH,
  bypass: CachePolicy.BYPASS,
  only: CachePolicy.ONLY,
};

const job: fc.Arbitrary<ModelJob> = fc.record({
  policy: fc.constantFrom('use', 'refresh', 'bypass', 'only'),
  tasks: fc.constantFrom(
    [{ taskId: 'a', dependsOn: [], chunkSize: 2 }],
    [
      { taskId: 'a', dependsOn: [], chunkSize: 2 },
      { taskId: 'b', dependsOn: ['a'], chunkSize: 1 },
      { taskId: 'c', dependsOn: ['a', 'b'], chunkSize: 3 },
    ],
  ),
  molecules: fc.array(fc.constantFrom('C', 'N', 'O', 'S'), { minLength: 1, maxLength: 6, size: 'max' }),
});

type Command = {
  kind: 'start' | 'append' | 'finish' | 'fail' | 'cancel' | 'reconcile' | 'materialize';
  execution: number;
  attempt: number;
  pick: number;
};

const command: fc.Arbitrary<Command> = fc.record({
  kind: fc.constantFrom(
    'start',
    'start',
    'start',
    'append',
    'append',
    'finish',
    'finish',
    'finish',
    'fail',
    'reconcile',
    'materialize',
    'start',
    'append',
    'append',
    'cancel',
  ),
  // Few, so that commands meet.
  execution: fc.nat(2),
  attempt: fc.integer({ min: 1, max: 3 }),
  pick: fc.nat(20),
});

const STATES = {
  queued: JobState.QUEUED,
  running: JobState.RUNNING,
  completed: JobState.COMPLETED,
  failed: JobState.FAILED,
  cancelled: JobState.CANCELLED,
};

/** The model's progress in the wire's words; event numbers differ in what the two sides tell, never in their order. */
const told = ({ state, counters }: Progress) => ({
  state: STATES[state],
  counters: Object.fromEntries(Object.entries(counters).map(([key, count]) => [key, BigInt(count)])),
});
const heard = (progress: JobProgress | undefined) => {
  const { $typeName: _name, ...counters } = progress!.counters!;
  return { state: progress!.state, counters };
};

/** A job in both. */
class Pair {
  readonly model: TenantModel;
  readonly plan: ModelJob;
  readonly org: Organization;
  jobId: string | undefined;
  ids: string[] = [];

  constructor(plan: ModelJob, org: Organization, cached: Iterable<string>) {
    this.plan = plan;
    this.org = org;
    this.model = new TenantModel(plan, cached);
  }

  async materialize(): Promise<void> {
    const { policy, tasks, molecules } = this.plan;
    const plans = tasks.map(({ taskId, dependsOn, chunkSize }) =>
      similarity({ taskId, task: `model.${taskId}`, dependsOn, chunkSize }),
    );
    const made = await world.materialize(this.org, {
      jobId: this.jobId,
      smiles: molecules,
      plans,
      policy: POLICIES[policy],
    });
    this.jobId = made.jobId;
    const found = await rows<{ id: string }>(
      this.org,
      `SELECT task_execution_id AS id FROM task_executions JOIN job_tasks USING (job_id, task_id) WHERE job_id = $1 ORDER BY position, chunk_no`,
      [made.jobId],
    );
    this.ids = found.map(({ id }) => id);
    const { progress, runnable } = this.model.materialize();
    expect(heard(made.progress)).toEqual(told(progress));
    expect(made.runnable.map(({ taskExecutionId }) => taskExecutionId)).toEqual(this.named(runnable));
  }

  named(executions: readonly number[]): string[] {
    return executions.map((id) => this.ids[id - 1]!);
  }

  /** The model's answer where it has one; the service must then have failed exactly as the fence says. */
  async agree<T>(answer: Answer<T>, call: Promise<unknown>): Promise<Exclude<Answer<T>, 'lease_lost'> | undefined> {
    const failure = await failureOf(call);
    if (answer === 'lease_lost') {
      expect(failure).toEqual({ code: 'aborted', reason: 'LEASE_LOST' });
      return undefined;
    }
    expect(failure).toBeUndefined();
    return answer as Exclude<Answer<T>, 'lease_lost'>;
  }

  async run({ kind, execution, attempt, pick }: Command): Promise<void> {
    if (kind === 'materialize') return this.materialize();
    if (kind === 'cancel') return this.cancel();
    if (kind === 'reconcile') {
      const { progress, runnable } = await world.asCatalog.reconcileJob({ orgId: this.org.orgId, jobId: this.jobId! });
      expect(heard(progress)).toEqual(told(this.model.progress));
      return expect(runnable.map(({ taskExecutionId }) => taskExecutionId)).toEqual(this.named(this.model.alive));
    }
    if (this.ids.length === 0) return;
    const number = (execution % this.ids.length) + 1;
    await this.onExecution(kind, number, this.ids[number - 1]!, { attempt, pick });
  }

  async cancel(): Promise<void> {
    const { progress } = await world.asCatalog.cancelJobRun({ orgId: this.org.orgId, jobId: this.jobId! });
    expect(heard(progress)).toEqual(told(this.model.cancel()));
  }

  async onExecution(
    kind: Command['kind'],
    number: number,
    id: string,
    { attempt, pick }: { attempt: number; pick: number },
  ): Promise<void> {
    const { org, model } = this;
    world.around.settled.length = 0;
    if (kind === 'start') {
      const answer = await this.agree(model.start(number, attempt), world.start(org, id, attempt));
      if (answer?.finished) this.expectSettled(id, answer.finished);
    } else if (kind === 'append') {
      const open = model.items.filter((item) => item.execution === number && item.status === 'pending');
      if (open.length === 0) return;
      const { itemNo } = open[pick % open.length]!;
      const outcome = pick % 3 === 0 ? 'failed' : 'scored';
      // Mostly the next one; now and then one that came before, or one too many.
      const batch = Math.max(1, model.executions[number - 1]!.batches + [1, 1, 1, 0, 2][pick % 5]!);
      await this.append(id, attempt, { number, batch, itemNo, outcome, score: pick / 20 });
    } else if (kind === 'finish') {
      const answer = await this.agree(model.finish(number, attempt), world.finish(org, id, attempt));
      if (answer) this.expectSettled(id, answer);
    } else {
      const request = { orgId: org.orgId, taskExecutionId: id, attempt, errorClass: 'WORKER_LOST' };
      await this.agree(model.fail(number, attempt), world.asCatalog.failExecution(request));
    }
  }

  async append(
    id: string,
    attempt: number,
    said: { number: number; batch: number; itemNo: number; outcome: 'scored' | 'failed'; score: number },
  ): Promise<void> {
    const { number, batch, itemNo, outcome, score } = said;
    const row = outcome === 'failed' ? { itemNo, errorClass: 'X', errorMessage: 'x' } : { itemNo, score };
    const held = await world.lease(this.org, id, attempt);
    const call = world.stream([{ ...held, batch, ...columnsOf([row], 'tanimoto') }]);
    const answer = this.model.append(number, attempt, said);
    if (answer === 'gap') {
      expect(await failureOf(call)).toEqual({ code: 'failed_precondition', reason: 'BATCH_GAP' });
    } else if (answer === 'twice') {
      expect(await failureOf(call)).toMatchObject({ code: 'invalid_argument' });
    } else if ((await this.agree(answer, call)) !== undefined) {
      expect((await call).nextBatch).toBe(this.model.executions[number - 1]!.batches + 1);
    }
  }

  expectSettled(id: string, { progress, runnable }: { progress: Progress; runnable: number[] }): void {
    expect(world.around.settled).toHaveLength(1);
    const [settled] = world.around.settled;
    expect(settled?.taskExecutionId).toBe(id);
    expect(heard(settled?.progress)).toEqual(told(progress));
    expect(settled?.runnable.map(({ taskExecutionId }) => taskExecutionId)).toEqual(this.named(runnable));
  }

  /** Every row as the model has it, and what is derived as it would be recomputed. */
  async compare(): Promise<void> {
    const { model, org, jobId } = this;
    const items = await rows<{ task_id: string; item_no: number; status: string; staged_status: string | null }>(
      org,
      `SELECT t.task_id, t.item_no, t.status, s.status AS staged_status
        FROM task_results t JOIN job_tasks k USING (job_id, task_id)
          LEFT JOIN staged_results s ON s.task_execution_id = t.task_execution_id AND s.item_no = t.item_no
        WHERE job_id = $1 ORDER BY k.position, t.item_no`,
      [jobId],
    );
    const open = new Set(model.executions.filter(({ status }) => status === 'running').map(({ id }) => id));
    expect(items).toEqual(
      model.items.map((item) => ({
        task_id: item.taskId,
        item_no: item.itemNo,
        status: item.status,
        staged_status: item.status === 'pending' && open.has(item.execution!) ? (item.staged ?? null) : null,
      })),
    );
    const executions = await rows<{ status: string; attempt: number; batches: number }>(
      org,
      'SELECT status, attempt, batches FROM task_executions WHERE task_execution_id = ANY ($1) ORDER BY array_position($1, task_execution_id)',
      [this.ids],
    );
    expect(executions).toEqual(model.executions.map(({ status, attempt, batches }) => ({ status, attempt, batches })));
    const [numbering] = await rows<Record<string, string>>(
      org,
      `SELECT count(*) AS events, max(seq_no) AS last, (SELECT event_seq FROM jobs WHERE job_id = $1) AS kept FROM job_events WHERE job_id = $1`,
      [jobId],
    );
    expect(new Set(Object.values(numbering!)).size).toBe(1);
    const cached = await rows<{ name: string }>(
      org,
      `SELECT DISTINCT substr(task, 7) || ' ' || t.smiles AS name FROM result_cache c JOIN task_results t
      ON (t.job_id, t.task_id, t.item_no) = (c.canonical_job_id, c.canonical_task_id, c.canonical_item_no)`,
    );
    expect(cached.map(({ name }) => name).sort()).toEqual([...model.cache].sort());
    expect(await driftOf(org)).toEqual([]);
  }
}

test('the service answers and stores what the model does, whatever it is asked', async () => {
  const org = await world.organization();
  let cached: Iterable<string> = [];
  await fc.assert(
    fc.asyncProperty(job, fc.array(command, { minLength: 5, maxLength: 30, size: 'max' }), async (plan, commands) => {
      // Jobs follow each other in one organization: what an earlier one left in the cache is there.
      const pair = new Pair(plan, org, cached);
      await pair.materialize();
      for (const next of commands) await pair.run(next);
      await pair.compare();
      // No job is left under way: the next one would wait for what it computes (coalesce.test.ts).
      await pair.cancel();
      cached = pair.model.cache;
    }),
    { numRuns: 40, endOnFailure: true },
  );
}, 120_000);
