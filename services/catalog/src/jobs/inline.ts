import type { HandlerContext } from '@connectrpc/connect';
import { SECOND_MS } from '@mad/process';
import { deadlineOf } from '@mad/rpc';
import type { CatalogContext } from '../context.ts';
import type { JobMessage } from './job-queues.ts';

/** Longer than this nobody waits for a step that a message guarantees. */
const PATIENCE_MS = 2 * SECOND_MS;

/**
 * Takes the next step of a job while its user waits, so that it need not wait for its message. What fails here is left
 * to the message. Never longer than 2 s, nor than half of the caller's time.
 */
export async function tryInline(
  context: CatalogContext,
  ctx: HandlerContext,
  message: JobMessage,
  step: (context: CatalogContext, message: JobMessage, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const half = Math.floor((deadlineOf(ctx) ?? Infinity) / 2);
  // A timer takes whole milliseconds only: an odd remainder threw, after the job was committed.
  const signal = AbortSignal.timeout(Math.min(PATIENCE_MS, Math.max(0, half)));
  try {
    await step(context, message, signal);
  } catch (error) {
    context.logger.info({ err: error, ...message }, 'left to its message');
  }
}
