import { afterEndings, noCounters, sumOf, type Counters } from '../../src/domain/counters.ts';
import {
  decideBatch,
  decideFail,
  decideFinish,
  decideStart,
  hasEnded,
  isAlive,
  mayReport,
  unblockedStatus,
  type ExecutionStatus,
} from '../../src/domain/execution.ts';
import { isEnded, jobStateOf, jobStateWhenBegun, type JobState } from '../../src/domain/job-state.ts';
import { beginItem, chunkNo } from '../../src/domain/materialize.ts';
import { readsCache, writesCache, type CachePolicy } from '../../src/domain/cache-entry.ts';
import { blocksDownstream, followerStatus, type EndedStatus, type WorkStatus } from '../../src/domain/work-item.ts';

/** Counts statuses. */
function tally(statuses: Iterable<WorkStatus>): Counters {
  const counters = noCounters();
  for (const status of statuses) {
    counters.requested += 1;
    counters[status] += 1;
  }
  return counters;
}

/** A task of the modelled job. */
export interface ModelTask {
  taskId: string;
  dependsOn: string[];
  chunkSize: number;
}

/** The modelled job: molecules are letters; equal letters are equal inputs. */
export interface ModelJob {
  policy: CachePolicy;
  tasks: ModelTask[];
  molecules: string[];
}

export interface ModelItem {
  taskId: string;
  itemNo: number;
  molecule: string;
  status: WorkStatus;
  follows: number | undefined;
  execution: number | undefined;
  staged: 'scored' | 'failed' | undefined;
}

export interface ModelExecution {
  id: number;
  taskId: string;
  status: ExecutionStatus;
  attempt: number;
  /** Batches of results taken from the attempt. */
  batches: number;
}

/** What results tells catalog: absolute and numbered. */
export interface Progress {
  state: JobState;
  counters: Counters;
  eventSeq: number;
}

/** An answer, or the fence's word. */
export type Answer<T> = T | 'lease_lost';

/**
 * One job in its tenant, in memory: each method is one transaction of results, decided by the same domain functions
 * that decide in the service. The set-based statements of the service are written out here.
 */
export class TenantModel {
  readonly plan: ModelJob;
  /** "task molecule" of results that may be taken. */
  readonly cache: Set<string>;
  items: ModelItem[] = [];
  executions: ModelExecution[] = [];
  state: JobState | undefined;
  counters = new Map<string, Counters>();
  events: { seq: number; event: string }[] = [];

  constructor(plan: ModelJob, cache: Iterable<string> = []) {
    this.plan = plan;
    this.cache = new Set(cache);
  }

  get progress(): Progress {
    return { state: this.state!, counters: sumOf(this.counters.values()), eventSeq: this.events.length };
  }

  get alive(): number[] {
    return this.executions.filter(({ status }) => isAlive(status)).map(({ id }) => id);
  }

  materialize(): { progress: Progress; runnable: number[] } {
    if (this.state === undefined) this.#make();
    return { progress: this.progress, runnable: this.alive };
  }

  #make(): void {
    const { policy, tasks, molecules } = this.plan;
    for (const task of tasks) {
      const leaders = new Map<string, number>();
      const toRun: ModelItem[] = [];
      molecules.forEach((molecule, index) => {
        const itemNo = index + 1;
        const upstream = task.dependsOn.map((taskId) => this.#item(taskId, itemNo).status);
        const hit = readsCache(policy) && this.cache.has(`${task.taskId} ${molecule}`) ? true : undefined;
        const beginning = beginItem({ policy, hit, upstream, leader: leaders.get(molecule) });
        const follows = beginning.status === 'pending' ? beginning.follows : undefined;
        const { taskId } = task;
        const item: ModelItem = {
          taskId,
          itemNo,
          molecule,
          status: beginning.status,
          follows,
          execution: undefined,
          staged: undefined,
        };
        this.items.push(item);
        if (item.status === 'pending' && follows === undefined) {
          leaders.set(molecule, itemNo);
          toRun.push(item);
        }
      });
      const waits = task.dependsOn.some((taskId) => this.counters.get(taskId)!.pending > 0);
      const before = this.executions.length;
      toRun.forEach((item, place) => {
        const id = before + chunkNo(place, task.chunkSize);
        if (id > this.executions.length) {
          this.executions.push({
            id,
            taskId: task.taskId,
            status: waits ? 'blocked' : 'queued',
            attempt: 0,
            batches: 0,
          });
        }
        item.execution = id;
      });
      this.counters.set(task.taskId, tally(this.#itemsOf(task.taskId).map(({ status }) => status)));
    }
    this.state = 'queued';
    this.#event('job.materialized');
    this.#close();
  }

  start(
    id: number,
    attempt: number,
  ): Answer<{ finished?: { progress: Progress; runnable: number[] }; items: number[]; nextBatch: number }> {
    const execution = this.#execution(id);
    const decision = decideStart(execution, attempt);
    if (decision === 'lease_lost') return decision;
    if (decision === 'already_finished') {
      return { finished: { progress: this.progress, runnable: this.alive }, items: [], nextBatch: 0 };
    }
    const pending = this.#pendingOf(id);
    if (decision !== 'repeat') {
      if (decision === 'begin_again') pending.forEach((item) => (item.staged = undefined));
      execution.attempt = attempt;
      execution.batches = 0;
      execution.status = 'running';
      this.state = jobStateWhenBegun(this.state!);
      this.#event('execution.started');
    }
    return { items: pending.map(({ itemNo }) => itemNo), nextBatch: execution.batches + 1 };
  }

  /** A batch of one item. */
  append(
    id: number,
    attempt: number,
    said: { batch: number; itemNo: number; outcome: 'scored' | 'failed' },
  ): Answer<'staged' | 'repeat' | 'gap' | 'twice'> {
    const execution = this.#execution(id);
    if (!mayReport(execution, attempt)) return 'lease_lost';
    const decision = decideBatch(execution.batches, said.batch);
    if (decision !== 'take') return decision;
    const item = this.#pendingOf(id).find((candidate) => candidate.itemNo === said.itemNo);
    if (item === undefined) throw new Error(`item ${said.itemNo} is not of execution ${id}`);
    if (item.staged !== undefined) return 'twice';
    item.staged = said.outcome;
    execution.batches = said.batch;
    return 'staged';
  }

  finish(id: number, attempt: number): Answer<{ progress: Progress; runnable: number[] }> {
    const execution = this.#execution(id);
    const decision = decideFinish(execution, attempt);
    if (decision === 'lease_lost') return decision;
    if (decision === 'repeat') return { progress: this.progress, runnable: this.alive };
    for (const item of this.#pendingOf(id)) {
      this.#end(item, item.staged ?? 'failed');
      if (item.status === 'scored' && writesCache(this.plan.policy)) this.cache.add(`${item.taskId} ${item.molecule}`);
    }
    execution.status = 'finished';
    this.#event('execution.finished');
    return this.#after();
  }

  fail(id: number, attempt: number): Answer<{ progress: Progress; runnable: number[] }> {
    const execution = this.#execution(id);
    const decision = decideFail(execution, attempt);
    if (decision === 'lease_lost') return decision;
    if (decision === 'already_ended') return { progress: this.progress, runnable: this.alive };
    for (const item of this.#pendingOf(id)) this.#end(item, 'failed');
    execution.status = 'failed';
    execution.attempt = attempt;
    this.#event('execution.failed');
    return this.#after();
  }

  cancel(): Progress {
    if (!isEnded(this.state!)) {
      for (const item of this.items) if (item.status === 'pending') this.#end(item, 'cancelled');
      for (const execution of this.executions) if (!hasEnded(execution.status)) execution.status = 'cancelled';
      this.#close();
    }
    return this.progress;
  }

  reconcile(): { progress: Progress; runnable: number[] } | undefined {
    return this.state === undefined ? undefined : { progress: this.progress, runnable: this.alive };
  }

  /** What must hold after every transaction. */
  check(): void {
    const problems: string[] = [];
    if (this.state === undefined) return;
    const recomputed = new Map(
      this.plan.tasks.map(({ taskId }) => [taskId, tally(this.#itemsOf(taskId).map((item) => item.status))]),
    );
    for (const [taskId, counters] of this.counters) {
      if (JSON.stringify(counters) !== JSON.stringify(recomputed.get(taskId)))
        problems.push(`counters of ${taskId} drifted`);
    }
    const { requested, ...parts } = sumOf(this.counters.values());
    if (requested !== Object.values(parts).reduce((sum, part) => sum + part, 0))
      problems.push('requested is not the sum');
    if (requested !== this.plan.tasks.length * this.plan.molecules.length)
      problems.push('an item was lost or made twice');
    this.events.forEach(({ seq }, index) => seq === index + 1 || problems.push(`event ${seq} is out of place`));
    if (isEnded(this.state) !== (parts.pending === 0)) problems.push(`${this.state} with ${parts.pending} pending`);
    for (const { status, follows, execution } of this.items) {
      if (status === 'pending' && (follows === undefined) !== (execution !== undefined))
        problems.push('a pending item nobody runs');
    }
    for (const execution of this.executions) {
      const pending = this.#pendingOf(execution.id).length;
      if (hasEnded(execution.status) && pending > 0) problems.push(`${execution.status} execution with pending items`);
    }
    if (problems.length > 0) throw new Error(problems.join('; '));
  }

  #end(item: ModelItem, status: EndedStatus): void {
    if (item.status !== 'pending') throw new Error('terminal is final');
    item.status = status;
    this.counters.set(item.taskId, afterEndings(this.counters.get(item.taskId) ?? noCounters(), { [status]: 1 }));
  }

  /** Followers, later tasks, the job's end; returns what became runnable. */
  #after(): { progress: Progress; runnable: number[] } {
    this.#endFollowers();
    const runnable = this.#unblock();
    this.#close();
    return { progress: this.progress, runnable };
  }

  #endFollowers(): void {
    for (const item of this.items) {
      if (item.status !== 'pending' || item.follows === undefined) continue;
      const leader = this.#item(item.taskId, item.follows).status;
      if (leader !== 'pending') this.#end(item, followerStatus(leader));
    }
  }

  #unblock(): number[] {
    const runnable: number[] = [];
    for (const { taskId, dependsOn } of this.plan.tasks) {
      const blocked = this.executions.filter(
        (execution) => execution.taskId === taskId && execution.status === 'blocked',
      );
      if (blocked.length === 0 || dependsOn.some((upstream) => this.counters.get(upstream)!.pending > 0)) continue;
      for (const item of this.#itemsOf(taskId)) {
        const upstream = dependsOn.map((task) => this.#item(task, item.itemNo).status);
        if (item.status === 'pending' && upstream.some(blocksDownstream)) this.#end(item, 'skipped');
      }
      this.#endFollowers();
      for (const execution of blocked) {
        execution.status = unblockedStatus(this.#pendingOf(execution.id).length);
        if (execution.status === 'queued') runnable.push(execution.id);
      }
      this.#event('task.unblocked');
    }
    return runnable;
  }

  #close(): void {
    const next = jobStateOf(this.state!, sumOf(this.counters.values()));
    if (next === this.state) return;
    this.state = next;
    this.#event(`job.${next}`);
  }

  #event(event: string): void {
    this.events.push({ seq: this.events.length + 1, event });
  }

  #execution(id: number): ModelExecution {
    return this.executions[id - 1]!;
  }

  #itemsOf(taskId: string): ModelItem[] {
    return this.items.filter((item) => item.taskId === taskId);
  }

  #item(taskId: string, itemNo: number): ModelItem {
    return this.items.find((item) => item.taskId === taskId && item.itemNo === itemNo)!;
  }

  #pendingOf(execution: number): ModelItem[] {
    return this.items.filter((item) => item.execution === execution && item.status === 'pending');
  }
}
