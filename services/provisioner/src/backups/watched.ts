import type { Database } from '@mad/postgres';
import { SECOND_MS } from '@mad/process';
import { isCancelRequested, noteProgress, type Held } from '../operations/lease.ts';
import { Cancelled } from '../operations/stops.ts';

const EVERY_MS = SECOND_MS;

/** How far it is, in bytes; kept up to date by whoever knows. */
export interface Progress {
  done: number;
  total: number;
}

/**
 * Runs the long part of a step: shows its progress once a second and looks whether the operation's end was asked for.
 * `fn` must end when its signal is aborted; then this throws the reason.
 */
export async function watched<T>(
  database: Database,
  held: Held,
  stop: AbortSignal,
  fn: (progress: Progress, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const cancelled = new AbortController();
  const signal = AbortSignal.any([stop, cancelled.signal]);
  const progress: Progress = { done: 0, total: 0 };
  let shown = -1;
  let looking = Promise.resolve();
  const look = async (): Promise<void> => {
    const { done, total } = progress;
    if (done !== shown) await noteProgress(database, held, { done: (shown = done), total, unit: 'bytes' });
    if (await isCancelRequested(database, held)) cancelled.abort(new Cancelled('its end was asked for'));
  };
  const timer = setInterval(() => {
    // What cannot be shown now is shown the next time.
    looking = looking.then(look).catch(() => undefined);
  }, EVERY_MS);
  try {
    return await fn(progress, signal);
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    clearInterval(timer);
    await looking;
    await noteProgress(database, held, { ...progress, unit: 'bytes' }).catch(() => undefined);
  }
}
