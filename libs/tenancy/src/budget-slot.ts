import { SECOND_MS } from '@mad/process';
import type pg from 'pg';
import type { Demand } from './demand.ts';

/** A stolen connection that has not ended by then is cut. */
const END_TIMEOUT_MS = 2 * SECOND_MS;

/** One open connection and whom it serves. */
export interface Slot {
  readonly client: pg.PoolClient;
  readonly member: Member;
  /** How often this very connection was needed. */
  readonly demand: Demand;
  /** When it was last put aside, in the milliseconds of `performance.now()`. */
  idleSince: number;
  /** The server or the network ended it. */
  dead: boolean;
  inUse: boolean;
}

/** Someone waiting for a connection. */
export interface Waiter {
  since: number;
  resolve(slot: Slot): void;
  reject(error: Error): void;
}

/** What the budget keeps of one tenant's pool. Only the budget changes it. */
export interface Member {
  /** Connections it may have at most. */
  readonly max: number;
  /** Opens one connection; the budget has made room for it. */
  connect(): Promise<pg.PoolClient>;
  /** Told when an idle connection breaks. */
  lost(error: Error): void;
  /** Open, being opened and being closed. */
  size: number;
  opening: number;
  closing: number;
  readonly idle: Slot[];
  readonly waiters: Waiter[];
  /** How often the tenant asked. Outlives its connections. */
  readonly demand: Demand;
  ended: boolean;
  /** Called once `ended` and the last connection is gone. */
  drained?: () => void;
}

/** Nothing of its own can come back to it: all it could get is a new connection. */
export function isHopeless(member: Member): boolean {
  return member.size === member.opening + member.closing;
}

/** Ends a connection and waits until the server's side is gone too, which is when its process has closed the socket. */
export async function endClient(client: pg.PoolClient): Promise<void> {
  const { connection } = client as unknown as { connection: { stream: { destroy(): void } } };
  const cut = setTimeout(() => connection.stream.destroy(), END_TIMEOUT_MS);
  try {
    await (client as unknown as pg.Client).end();
  } catch {
    connection.stream.destroy();
  } finally {
    clearTimeout(cut);
  }
}
