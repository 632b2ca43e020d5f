import type { HandlerContext } from '@connectrpc/connect';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { SECOND_MS } from '@mad/process';
import type { WatchJobRequest, WatchJobResponseSchema } from '@mad/proto/results';
import { orgOf } from '@mad/rpc';
import type { Context } from '../context.ts';
import { isEnded } from '../domain/job-state.ts';
import { countersMessage, stateMessage } from '../runs/job-image.ts';
import { countersIn, eventBytes, eventMessage } from './convert.ts';
import { fitting } from './fill-page.ts';

/** Something is sent at least this often, so that a dead connection is noticed. */
const HEARTBEAT_MS = 10 * SECOND_MS;

/**
 * A job's events after a number, without gaps, with its state and counters; at least every 10 s its counters alone. Ends
 * after the last event of an ended job, or with the call's signal. Whoever takes them slowly is given what is kept, or
 * what is read by the number it has come to.
 */
export async function* watchJob(
  { watches }: Pick<Context, 'watches'>,
  { jobId, afterSeq }: WatchJobRequest,
  ctx: HandlerContext,
): AsyncGenerator<MessageInitShape<typeof WatchJobResponseSchema>> {
  const { signal } = ctx;
  let seen = Number(afterSeq);
  let sentAt = 0;
  const job = watches.join(orgOf(ctx), jobId);
  try {
    for (;;) {
      const view = await job.view(signal);
      const { row, after, through } = view;
      const events = fitting(await job.eventsAfter(view, seen, signal), eventBytes);
      if (events.length === 0 && seen < after) {
        // They are gone, and none of them can come any more.
        seen = after;
        continue;
      }
      seen = events.at(-1)?.seq_no ?? seen;
      if (events.length > 0 || Date.now() - sentAt >= HEARTBEAT_MS) {
        sentAt = Date.now();
        yield {
          events: events.map(eventMessage),
          state: stateMessage(row.status),
          counters: countersMessage(countersIn(row)),
        };
      }
      if (seen < through && events.length > 0) continue;
      if (isEnded(row.status) && through >= row.event_seq) return;
      await job.moved(view, HEARTBEAT_MS - (Date.now() - sentAt), signal);
    }
  } finally {
    job.leave();
  }
}
