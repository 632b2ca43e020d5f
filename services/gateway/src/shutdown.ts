import { setMaxListeners } from 'node:events';
import { Code, type ConnectError } from '@connectrpc/connect';
import { SECOND_MS, sleep } from '@mad/process';
import { rpcError } from '@mad/rpc';
import type { EdgeServer } from './edge-server.ts';

/** How the gateway ends, phase by phase. */
export interface Shutdown {
  /** True from the first phase on: the gateway says it is not ready. */
  draining(): boolean;
  /** Aborted when streams are to end. */
  streamsEnd: AbortSignal;
  /** Aborted when whatever is left is to end. */
  callsEnd: AbortSignal;
  /**
   * Not ready → accepts no more and ends its streams → waits for calls in flight → cuts what is left. Load balancers
   * have the first phase to look elsewhere; clients of streams are told where to go on.
   */
  close(server: EdgeServer): Promise<void>;
}

/** Clients of ended streams come back after this. */
const COME_BACK_MS = SECOND_MS;
/** What was cut at the end may still be told so. */
const LAST_WORDS_MS = SECOND_MS / 2;
const LOOK_EVERY_MS = 20;

/** Prepares the end: `drainMs` unready, `finishMs` for calls in flight. */
export function shutdownIn({ drainMs, finishMs }: { drainMs: number; finishMs: number }): Shutdown {
  const streams = new AbortController();
  const calls = new AbortController();
  // Every call in flight listens.
  setMaxListeners(0, streams.signal, calls.signal);
  let draining = false;
  const reason = (): ConnectError =>
    rpcError(
      Code.Unavailable,
      'SHUTTING_DOWN',
      'the gateway is shutting down: open the stream again, behind the last message',
      {},
      { retryAfterMs: COME_BACK_MS },
    );
  return {
    draining: () => draining,
    streamsEnd: streams.signal,
    callsEnd: calls.signal,
    async close(server) {
      const http = server.app.server;
      const idle = async (withinMs: number): Promise<void> => {
        for (const end = Date.now() + withinMs; server.answering() > 0 && Date.now() < end;) {
          await sleep(LOOK_EVERY_MS);
          // A connection kept alive after its answer would bring more requests.
          http.closeIdleConnections();
        }
      };
      draining = true;
      await sleep(drainMs);
      const closed = server.app.close();
      streams.abort(reason());
      await idle(finishMs);
      if (server.answering() > 0) {
        calls.abort(rpcError(Code.Unavailable, 'SHUTTING_DOWN', 'the gateway is shutting down', {}));
        await idle(LAST_WORDS_MS);
      }
      // Half a request counts as busy for Node: nobody here answers it, so it is cut.
      http.closeAllConnections();
      await closed;
    },
  };
}
