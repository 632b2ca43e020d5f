import {
  Code,
  ConnectError,
  createContextKey,
  type Interceptor,
  type StreamRequest,
  type UnaryRequest,
} from '@connectrpc/connect';
import { answeredError } from '../errors.ts';

/** How a call ended. */
export interface EndedCall {
  request: UnaryRequest | StreamRequest;
  /** What the caller was told, absent after success. */
  error?: ConnectError;
  durationMs: number;
}

/** Told once about every call that reached the interceptors, when its last message was answered. */
export type CallObserver = (call: EndedCall) => void;

/** Set on every call that reached the interceptors. */
export const reachedHandlerKey = createContextKey(false, { description: 'mad reached handler' });

/** Makes every error one that a caller may see (see answeredError) and reports the end of every call. */
export function observeInterceptor(observers: readonly CallObserver[]): Interceptor {
  return (next) => async (request) => {
    const start = performance.now();
    request.contextValues.set(reachedHandlerKey, true);
    const ended = (error?: ConnectError): void => {
      const call = { request, error, durationMs: performance.now() - start };
      for (const observe of observers) observe(call);
    };
    try {
      const response = await next(request);
      if (response.stream) return { ...response, message: observed(response.message, request.signal, ended) };
      throwIfLate(request.signal);
      ended();
      return response;
    } catch (thrown) {
      const error = answeredError(thrown, request.signal);
      ended(error);
      throw error;
    }
  };
}

/**
 * A handler that ends well after its deadline did not keep it. gRPC's server says so by itself; Connect's would pass the
 * late answer on, and a client without a clock of its own would take a wait cut short for a whole one.
 */
function throwIfLate({ aborted, reason }: AbortSignal): void {
  if (aborted && reason instanceof ConnectError && reason.code === Code.DeadlineExceeded) throw reason;
}

async function* observed<T>(
  messages: AsyncIterable<T>,
  signal: AbortSignal,
  ended: (error?: ConnectError) => void,
): AsyncGenerator<T> {
  let over = false;
  try {
    for await (const message of messages) yield message;
    throwIfLate(signal);
    over = true;
    ended();
  } catch (thrown) {
    over = true;
    const error = answeredError(thrown, signal);
    ended(error);
    throw error;
  } finally {
    if (!over) ended(new ConnectError('the client left the stream', Code.Canceled));
  }
}
