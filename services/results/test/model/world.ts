import { isAlive } from '../../src/domain/execution.ts';
import { CatalogModel } from './catalog-model.ts';
import { TenantModel, type ModelJob, type Progress } from './tenant-model.ts';

/** A worker that holds, or believes it holds, a lease. */
interface Worker {
  execution: number;
  attempt: number;
  items: number[];
  stopped: boolean;
  /** The number of its next batch. */
  nextBatch: number;
  /** What it said last, batch number and all. */
  last: Said | undefined;
  /** Whether the answer to that was lost: it is said again before anything else. */
  unanswered: boolean;
}

/** A batch of one item. */
interface Said {
  batch: number;
  itemNo: number;
  outcome: 'scored' | 'failed';
}

/** Something on its way to catalog: it may arrive late, twice, out of order or not at all. */
interface Message {
  settles: number | undefined;
  progress: Progress;
  runnable: number[];
}

/** One step of an interleaving; `pick` chooses among what the step can act on. */
export interface Step {
  kind: keyof typeof STEP_WEIGHTS;
  pick: number;
}

/** The steps with how often they are tried: cancelling ends everything, so it is rare. */
export const STEP_WEIGHTS = {
  materialize: 2,
  lease: 6,
  start: 8,
  append: 12,
  append_failure: 3,
  append_unanswered: 3,
  append_again: 2,
  append_ahead: 2,
  finish: 6,
  expire: 4,
  fail: 2,
  cancel: 0.2,
  reconcile: 2,
  deliver: 8,
  repeat_delivery: 2,
  lose: 1,
} as const;

/**
 * One job between catalog, results, workers and the network. Leases expire under workers that go on working; workers
 * repeat what they said; what results tells catalog travels as messages.
 */
export class World {
  readonly tenant: TenantModel;
  readonly catalog = new CatalogModel();
  readonly workers: Worker[] = [];
  messages: Message[] = [];
  /** The newest attempt that was let in, by execution. */
  readonly #newest = new Map<number, number>();
  /** Which attempt's word an item holds, by execution and item. */
  readonly #staged = new Map<string, number>();
  /** How often the fence refused something. */
  refused = 0;
  /** How often a batch came again, and how often one left a gap. */
  repeated = 0;
  gaps = 0;

  constructor(plan: ModelJob, cache: string[]) {
    this.tenant = new TenantModel(plan, cache);
  }

  /** Does the step where it is possible; the invariants must hold afterwards. */
  step({ kind, pick }: Step): void {
    const ended = new Map(this.tenant.items.map((item) => [item, item.status]));
    this.#do(kind, pick);
    this.tenant.check();
    for (const [item, status] of ended) {
      if (status !== 'pending' && item.status !== status)
        throw new Error(`an item changed from ${status} to ${item.status}`);
    }
  }

  #do(kind: Step['kind'], pick: number): void {
    const one = <T>(all: readonly T[]): T | undefined => all[pick % Math.max(1, all.length)];
    switch (kind) {
      case 'materialize':
        return void this.messages.push({ settles: undefined, ...this.tenant.materialize() });
      case 'lease': {
        const id = one(this.catalog.leasable());
        if (id !== undefined)
          this.workers.push({
            execution: id,
            attempt: this.catalog.lease(id),
            items: [],
            stopped: false,
            nextBatch: 1,
            last: undefined,
            unanswered: false,
          });
        return;
      }
      case 'start':
        return this.#start(one(this.workers));
      case 'append':
      case 'append_failure':
        return this.#append(one(this.workers), pick, kind === 'append' ? 'scored' : 'failed');
      case 'append_unanswered':
        return this.#append(one(this.workers), pick, 'scored', true);
      case 'append_again':
        return this.#appendAgain(one(this.workers));
      case 'append_ahead':
        return this.#appendAhead(one(this.workers), pick);
      case 'finish':
        return this.#finish(one(this.workers));
      case 'expire': {
        const id = one(this.catalog.leased());
        if (id !== undefined) this.catalog.expire(id);
        return;
      }
      case 'fail':
        return this.#fail(one(this.catalog.poisonous()));
      case 'cancel':
        return this.#cancel();
      case 'reconcile': {
        const found = this.tenant.reconcile();
        if (found !== undefined) this.messages.push({ settles: undefined, ...found });
        return;
      }
      case 'deliver':
        return this.#deliver(one(this.messages), true);
      case 'repeat_delivery':
        return this.#deliver(one(this.messages), false);
      case 'lose':
        this.messages = this.messages.filter((message) => message !== one(this.messages));
    }
  }

  /** The fence, seen from outside: once a newer attempt was let in, an older one has no say. */
  #expectFence(worker: Worker, answer: unknown): void {
    const newest = this.#newest.get(worker.execution) ?? 0;
    if (answer === 'lease_lost') this.refused += 1;
    else if (worker.attempt < newest) throw new Error(`attempt ${worker.attempt} had a say after ${newest}`);
  }

  #start(worker: Worker | undefined): void {
    if (worker === undefined || worker.stopped) return;
    const answer = this.tenant.start(worker.execution, worker.attempt);
    const finished = answer !== 'lease_lost' && answer.finished !== undefined;
    if (!finished) this.#expectFence(worker, answer);
    if (answer !== 'lease_lost' && !finished) this.#newest.set(worker.execution, worker.attempt);
    if (answer === 'lease_lost') worker.stopped = true;
    else if (answer.finished === undefined) this.#begin(worker, answer);
    else this.messages.push({ settles: worker.execution, ...answer.finished });
  }

  /** What a worker takes from the answer to its start. Asked again, results knows where the worker is. */
  #begin(worker: Worker, { items, nextBatch }: { items: number[]; nextBatch: number }): void {
    if (nextBatch !== worker.nextBatch + (worker.unanswered ? 1 : 0))
      throw new Error(`results goes on with batch ${nextBatch}, the worker with ${worker.nextBatch}`);
    worker.items = items;
    worker.nextBatch = nextBatch;
    worker.unanswered = false;
  }

  #append(worker: Worker | undefined, pick: number, outcome: 'scored' | 'failed', loseAnswer = false): void {
    const itemNo = worker?.items[pick % Math.max(1, worker.items.length)];
    if (worker === undefined || itemNo === undefined) return;
    const said = worker.unanswered ? worker.last! : { batch: worker.nextBatch, itemNo, outcome };
    const answer = this.tenant.append(worker.execution, worker.attempt, said);
    this.#expectFence(worker, answer);
    if (answer === 'lease_lost') {
      worker.items = [];
      return;
    }
    if (answer === 'gap') throw new Error('a worker that counts left a gap');
    if ((answer === 'repeat') !== worker.unanswered) throw new Error(`batch ${said.batch} is ${answer}`);
    if (answer === 'twice') return;
    if (answer === 'repeat') this.repeated += 1;
    else this.#staged.set(`${worker.execution}/${said.itemNo}`, worker.attempt);
    worker.last = said;
    worker.unanswered = loseAnswer;
    if (!loseAnswer) worker.nextBatch = said.batch + 1;
  }

  /** A batch that comes again, with other content, changes nothing. */
  #appendAgain(worker: Worker | undefined): void {
    if (worker?.last === undefined) return;
    const before = JSON.stringify(this.tenant.items);
    const outcome = worker.last.outcome === 'scored' ? 'failed' : 'scored';
    const answer = this.tenant.append(worker.execution, worker.attempt, { ...worker.last, outcome });
    this.#expectFence(worker, answer);
    if (answer !== 'repeat' && answer !== 'lease_lost') throw new Error(`a repeat was ${answer}`);
    if (JSON.stringify(this.tenant.items) !== before) throw new Error('a repeat changed an item');
    if (answer === 'repeat') this.repeated += 1;
  }

  /** A batch that leaves a gap is refused. */
  #appendAhead(worker: Worker | undefined, pick: number): void {
    const itemNo = worker?.items[pick % Math.max(1, worker.items.length)];
    if (worker === undefined || itemNo === undefined) return;
    const said = { batch: worker.nextBatch + 2, itemNo, outcome: 'scored' } as const;
    const answer = this.tenant.append(worker.execution, worker.attempt, said);
    this.#expectFence(worker, answer);
    if (answer !== 'gap' && answer !== 'lease_lost') throw new Error(`a batch too early was ${answer}`);
    if (answer === 'gap') this.gaps += 1;
  }

  #finish(worker: Worker | undefined): void {
    if (worker === undefined) return;
    const mine = this.tenant.items.filter(
      ({ execution, status }) => execution === worker.execution && status === 'pending',
    );
    const answer = this.tenant.finish(worker.execution, worker.attempt);
    this.#expectFence(worker, answer);
    for (const { itemNo, status } of mine) {
      const attempt = this.#staged.get(`${worker.execution}/${itemNo}`);
      if (status === 'scored' && attempt !== worker.attempt)
        throw new Error(`attempt ${worker.attempt} finished what ${attempt} said`);
    }
    if (answer !== 'lease_lost') this.messages.push({ settles: worker.execution, ...answer });
  }

  #fail(id: number | undefined): void {
    if (id === undefined) return;
    const attempt = this.catalog.queue.get(id)!.attempt + 1;
    const open = isAlive(this.tenant.executions[id - 1]!.status);
    const answer = this.tenant.fail(id, attempt);
    if (open && answer !== 'lease_lost') this.#newest.set(id, attempt);
    if (answer !== 'lease_lost') this.messages.push({ settles: id, ...answer });
  }

  #cancel(): void {
    if (this.catalog.ended) return;
    this.catalog.cancelRequested = true;
    this.tenant.materialize();
    this.messages.push({ settles: undefined, progress: this.tenant.cancel(), runnable: [] });
  }

  #deliver(message: Message | undefined, once: boolean): void {
    if (message === undefined) return;
    if (once) this.messages = this.messages.filter((other) => other !== message);
    const { settles, progress, runnable } = message;
    if (settles === undefined) {
      this.catalog.apply(progress);
      this.catalog.enqueue(runnable);
    } else {
      this.catalog.settle(settles, progress, runnable);
    }
  }

  /** What time does when nothing more goes wrong: retries, reaper, reconcile. Throws when the job does not end. */
  quiesce(): void {
    for (let round = 0; !this.catalog.ended; round += 1) {
      if (round > 100)
        throw new Error(`the job never ends: ${JSON.stringify([this.tenant.progress, [...this.catalog.queue]])}`);
      this.step({ kind: this.catalog.cancelRequested ? 'cancel' : 'materialize', pick: 0 });
      while (this.messages.length > 0) this.step({ kind: 'deliver', pick: 0 });
      for (const id of this.catalog.leased()) this.catalog.expire(id);
      for (const _ of this.catalog.poisonous()) this.step({ kind: 'fail', pick: 0 });
      for (const _ of this.catalog.leasable()) {
        this.step({ kind: 'lease', pick: 0 });
        const worker = this.workers.length - 1;
        this.step({ kind: 'start', pick: worker });
        // All but one in three: an engine may say nothing of an item.
        const items = this.workers[worker]!.items.length;
        for (let item = 0; item < items; item += 1)
          if (item % 3 !== 2) this.#append(this.workers[worker], item, 'scored');
        this.step({ kind: 'finish', pick: worker });
      }
    }
    while (this.messages.length > 0) this.step({ kind: 'deliver', pick: 0 });
  }
}
