import { Code, ConnectError, encodeBinaryHeader } from '@connectrpc/connect';
import { sleep } from '@mad/process';
import { EchoService } from '@mad/proto/echo';
import { bind, callerOf, invalid, rpcError, type BoundService } from '../src/index.ts';

/** What the handlers saw. */
export interface Seen {
  /** Reasons of aborted signals. */
  aborts: unknown[];
  /** Handlers that ran their finally block. */
  finished: number;
  produced: number;
  consumed: number;
  timeoutMs: number | undefined;
  calls: number;
}

const nothing = (): Seen => ({ aborts: [], finished: 0, produced: 0, consumed: 0, timeoutMs: undefined, calls: 0 });

/** Bytes over the message limit that the tests set. */
export const TOO_LARGE = 5 * 1024 * 1024;

/** The error of mode "error": every part of an error that must arrive. */
export function fullError(): ConnectError {
  const error = rpcError(Code.FailedPrecondition, 'QUOTA_EXCEEDED', 'bad: ünïcode, 100% "x" a/b?c=d&e', { k: 'v' });
  error.metadata.set('x-err', 'e1');
  error.metadata.set('x-err-bin', encodeBinaryHeader(new Uint8Array([9, 8, 7])));
  return error;
}

/** Handlers that do what requests tell them, and the record of what they saw. */
export function echoHandlers(): { bound: BoundService; seen: Seen; reset: () => void } {
  const seen = nothing();
  const untilAborted = (signal: AbortSignal): Promise<void> =>
    new Promise((resolve) => {
      const onAbort = (): void => {
        seen.aborts.push(signal.reason);
        resolve();
      };
      if (signal.aborted) onAbort();
      else signal.addEventListener('abort', onAbort);
    });

  const bound = bind(EchoService, {
    async unary(request, context) {
      seen.calls++;
      seen.timeoutMs = context.timeoutMs();
      switch (request.mode) {
        case 'error':
          throw fullError();
        case 'plain-error':
          throw new ConnectError('plain: a,b;c %3A 100% ü', Code.NotFound);
        case 'invalid':
          throw invalid('slug', 'is taken');
        case 'retry':
          throw rpcError(Code.ResourceExhausted, 'CONNECTION_BUDGET_EXHAUSTED', 'busy', {}, { retryAfterMs: 1500 });
        case 'crash':
          throw new TypeError('secret detail');
        case 'hang':
          await untilAborted(context.signal);
          throw new Error('canceling statement due to user request');
        case 'slow':
          await sleep(300);
          break;
        case 'big':
          return { data: new Uint8Array(TOO_LARGE) };
        case 'illegal-header':
          context.responseHeader.set('x-latin', 'é');
          break;
        case 'illegal-error':
          throw new ConnectError('no', Code.NotFound, { 'x-latin': 'é' });
        case 'meta':
          context.responseHeader.set('x-echo', context.requestHeader.get('x-in') ?? '');
          context.responseHeader.set('x-echo-bin', context.requestHeader.get('x-in-bin') ?? '');
          context.responseTrailer.set('x-trail', 'tr');
          context.responseTrailer.set('x-trail-bin', encodeBinaryHeader(new Uint8Array([0, 255, 128])));
      }
      const { id, slug, count, value, data } = request;
      return { id, slug, count, value, data };
    },

    async *serverStream(request, context) {
      try {
        context.responseHeader.set('x-stream', 'h');
        context.responseTrailer.set('x-trail', 'tr');
        if (request.mode === 'hang') {
          yield { number: 0 };
          await untilAborted(context.signal);
          throw context.signal.reason;
        }
        const data = new Uint8Array(request.size);
        for (let number = 0; number < request.count; number++) {
          seen.produced++;
          yield { number, data };
        }
        if (request.mode === 'error') throw fullError();
      } finally {
        seen.finished++;
      }
    },

    async clientStream(requests, context) {
      let count = 0n;
      let bytes = 0n;
      try {
        for await (const { number, data } of requests) {
          count++;
          bytes += BigInt(data.length);
          seen.consumed++;
          if (number === -1) throw fullError();
          if (number === -2) return { count, bytes, note: 'early' };
          if (number === -3) await sleep(5);
        }
      } finally {
        if (context.signal.aborted) seen.aborts.push(context.signal.reason);
        seen.finished++;
      }
      return { count, bytes, note: 'all' };
    },

    async *bidiStream(requests, context) {
      try {
        for await (const { number, data } of requests) {
          seen.consumed++;
          if (number === -1) throw fullError();
          yield { number: number + 1, data };
        }
      } finally {
        if (context.signal.aborted) seen.aborts.push(context.signal.reason);
        seen.finished++;
      }
    },

    async submitBulk(requests) {
      let count = 0n;
      for await (const { ids } of requests) count += BigInt(ids.length);
      return { count };
    },

    askService: (_request, context) => ({ caller: JSON.stringify(callerOf(context)) }),
  });
  return { bound, seen, reset: () => Object.assign(seen, nothing()) };
}
