import type { Counters } from '../../src/domain/counters.ts';
import { isEnded, type JobState } from '../../src/domain/job-state.ts';
import type { Progress } from './tenant-model.ts';

/** A task execution in the queue. `attempt` is that of the last lease; `leased` while it holds. */
export interface QueueRow {
  attempt: number;
  leased: boolean;
  losses: number;
}

/** After this many lost leases catalog gives up on an execution. */
export const MAX_LOSSES = 2;

/** Catalog's side of one job, in memory: the light record and the queue. Each method is one of its transactions. */
export class CatalogModel {
  state: JobState | 'pending' = 'pending';
  counters: Counters | undefined;
  eventSeq = 0;
  cancelRequested = false;
  readonly queue = new Map<number, QueueRow>();

  get ended(): boolean {
    return this.state !== 'pending' && isEnded(this.state);
  }

  /** Takes over a progress that is newer; terminal is final. */
  apply({ state, counters, eventSeq }: Progress): void {
    if (this.ended || eventSeq <= this.eventSeq) return;
    this.state = state;
    this.counters = counters;
    this.eventSeq = eventSeq;
    if (this.ended) this.queue.clear();
  }

  /** Queues what may run, idempotent by id. */
  enqueue(runnable: readonly number[]): void {
    if (this.ended || this.cancelRequested) return;
    for (const id of runnable) if (!this.queue.has(id)) this.queue.set(id, { attempt: 0, leased: false, losses: 0 });
  }

  settle(id: number, progress: Progress, runnable: readonly number[]): void {
    this.queue.delete(id);
    this.apply(progress);
    this.enqueue(runnable);
  }

  lease(id: number): number {
    const row = this.queue.get(id)!;
    row.leased = true;
    row.attempt += 1;
    return row.attempt;
  }

  expire(id: number): void {
    const row = this.queue.get(id)!;
    row.leased = false;
    row.losses += 1;
  }

  leasable(): number[] {
    return [...this.queue].filter(([, row]) => !row.leased && row.losses < MAX_LOSSES).map(([id]) => id);
  }

  leased(): number[] {
    return [...this.queue].filter(([, row]) => row.leased).map(([id]) => id);
  }

  poisonous(): number[] {
    return [...this.queue].filter(([, row]) => !row.leased && row.losses >= MAX_LOSSES).map(([id]) => id);
  }
}
