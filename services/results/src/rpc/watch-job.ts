import type { HandlerContext } from '@connectrpc/connect';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { SECOND_MS } from '@mad/process';
import type { WatchJobRequest, WatchJobResponseSchema } from '@mad/proto/results';
import { orgOf } from '@mad/rpc';
import type { TenantTx } from '@mad/tenancy';
import type { Context } from '../context.ts';
import type { JobEventRow, JobRow } from '../db/entities/job.ts';
import { isEnded } from '../domain/job-state.ts';
import { countersMessage, requireJob, stateMessage } from '../runs/job-image.ts';
import { countersIn, eventMessage } from './convert.ts';

/** Rows are looked at this often even when nobody says that the job moved: another process may, without Redis. */
const POLL_MS = SECOND_MS;
/** Something is sent at least this often, so that a dead connection is noticed. */
const HEARTBEAT_MS = 10 * SECOND_MS;
const EVENTS_PER_MESSAGE = 500;

/** A job's events after a number. What dropped its results shows none, though their rows may still wait to be cleared away. */
export async function readEvents(
  tx: TenantTx,
  { job_id: jobId, results_dropped_at: droppedAt }: Pick<JobRow, 'job_id' | 'results_dropped_at'>,
  afterSeq: number,
  limit: number,
): Promise<JobEventRow[]> {
  if (droppedAt !== null) return [];
  return tx.query<JobEventRow>(
    `SELECT job_id, seq_no, ts, event, detail, metadata FROM job_events WHERE job_id = $1 AND seq_no > $2 ORDER BY seq_no LIMIT $3`,
    [jobId, afterSeq, limit],
  );
}

/**
 * A job's events after a number, without gaps, with its state and counters; at least every 10 s its counters alone. Ends
 * after the last event of an ended job, or with the call's signal. The job is read before its events: once it has
 * ended, no event can come that the second read does not see.
 */
export async function* watchJob(
  { tenants, feed }: Pick<Context, 'tenants' | 'feed'>,
  { jobId, afterSeq }: WatchJobRequest,
  ctx: HandlerContext,
): AsyncGenerator<MessageInitShape<typeof WatchJobResponseSchema>> {
  const orgId = orgOf(ctx);
  const { signal } = ctx;
  let seen = Number(afterSeq);
  let sentAt = 0;
  const wake = new Wake(signal);
  const unwatch = feed.watch(orgId, jobId, () => wake.ring());
  try {
    for (;;) {
      wake.reset();
      const { row, events } = await tenants.read(
        orgId,
        async (tx) => {
          const { row: job } = await requireJob(tx, jobId);
          // Nothing new: no need to look.
          const rows = job.event_seq > seen ? await readEvents(tx, job, seen, EVENTS_PER_MESSAGE) : [];
          return { row: job, events: rows };
        },
        { signal },
      );
      const now = Date.now();
      if (events.length > 0 || now - sentAt >= HEARTBEAT_MS) {
        sentAt = now;
        seen = events.at(-1)?.seq_no ?? seen;
        yield {
          events: events.map(eventMessage),
          state: stateMessage(row.status),
          counters: countersMessage(countersIn(row)),
        };
      }
      if (events.length === EVENTS_PER_MESSAGE) continue;
      // Also where its events are gone: none can come any more.
      if (isEnded(row.status)) return;
      await wake.wait(POLL_MS);
    }
  } finally {
    unwatch();
    wake.close();
  }
}

/** A wait that ends early when somebody rings, and throws when the signal aborts. */
class Wake {
  readonly #signal: AbortSignal;
  #bell = Promise.withResolvers<void>();
  readonly #onAbort = (): void => this.ring();

  constructor(signal: AbortSignal) {
    this.#signal = signal;
    signal.addEventListener('abort', this.#onAbort, { once: true });
  }

  ring(): void {
    this.#bell.resolve();
  }

  /** What rings from now on ends the next wait. */
  reset(): void {
    this.#bell = Promise.withResolvers<void>();
  }

  async wait(ms: number): Promise<void> {
    this.#signal.throwIfAborted();
    const timer = setTimeout(() => this.ring(), ms);
    await this.#bell.promise;
    clearTimeout(timer);
    this.#signal.throwIfAborted();
  }

  close(): void {
    this.#signal.removeEventListener('abort', this.#onAbort);
  }
}
