import { SECOND_MS } from '@mad/process';

/** How a server stream is written into an HTTP body. */
export interface StreamFormat {
  contentType: string;
  /** What the body starts with. */
  opening: string;
  /** One message, with its cursor where it has one. */
  message(json: string, cursor: string | undefined): string;
  /** What follows the last message of a stream that ended well. */
  ending: string;
  /** The last word of a stream that was cut. */
  failure(problem: string): string;
  /** What is sent while there is nothing to send; undefined where the format has nothing that means nothing. */
  heartbeat: string | undefined;
}

/** One `{"result":…}` a line; a stream that was cut ends in `{"error":problem}`. */
export const NDJSON: StreamFormat = {
  contentType: 'application/x-ndjson',
  opening: '',
  message: (json) => `{"result":${json}}\n`,
  ending: '',
  failure: (problem) => `{"error":${problem}}\n`,
  heartbeat: undefined,
};

/** A browser that lost its stream comes back after this. */
const RETRY_MS = 2 * SECOND_MS;

/** Server-sent events (WHATWG HTML §9.2): unnamed ones for messages, then one named `end` or `error`. */
export const SERVER_SENT_EVENTS: StreamFormat = {
  contentType: 'text/event-stream',
  opening: `retry: ${RETRY_MS}\n\n`,
  message: (json, cursor) => (cursor === undefined ? `data: ${json}\n\n` : `id: ${cursor}\ndata: ${json}\n\n`),
  ending: 'event: end\ndata: {}\n\n',
  failure: (problem) => `event: error\ndata: ${problem}\n\n`,
  heartbeat: ': still here\n\n',
};

/** The format a client asks for: server-sent events where it accepts them by name, else NDJSON. */
export function formatFor(accept: string | undefined): StreamFormat {
  return /\btext\/event-stream\b/i.test(accept ?? '') ? SERVER_SENT_EVENTS : NDJSON;
}

const IDLE = Symbol('idle');

/** What to write of a stream, and how. */
export interface StreamText<T> {
  format: StreamFormat;
  /** The first message, already asked for. */
  first: Promise<IteratorResult<T>>;
  /** The messages behind it. */
  rest: AsyncIterator<T>;
  heartbeatMs: number;
  /** A message as JSON, and its cursor. */
  write(message: T): { json: string; cursor: string | undefined };
  /** The problem of a stream that was cut, as JSON; undefined where nobody is left to tell. */
  problem(error: unknown): string | undefined;
}

/**
 * The text of a stream, piece by piece. Asked for one piece at a time: a client that reads slowly is read for slowly, and
 * what holds back is the service, not a buffer here.
 */
export async function* streamText<T>(stream: StreamText<T>): AsyncGenerator<string> {
  const { format, rest } = stream;
  try {
    if (format.opening) yield format.opening;
    let pending = stream.first;
    for (;;) {
      const next = format.heartbeat ? await orIdle(pending, stream.heartbeatMs) : await pending;
      if (next === IDLE) {
        yield format.heartbeat!;
        continue;
      }
      if (next.done) break;
      const { json, cursor } = stream.write(next.value);
      yield format.message(json, cursor);
      pending = rest.next();
    }
    if (format.ending) yield format.ending;
  } catch (error) {
    const problem = stream.problem(error);
    if (problem !== undefined) yield format.failure(problem);
  }
}

async function orIdle<T>(pending: Promise<T>, ms: number): Promise<T | typeof IDLE> {
  const { promise: idle, resolve } = Promise.withResolvers<typeof IDLE>();
  const timer = setTimeout(() => resolve(IDLE), ms);
  try {
    return await Promise.race([pending, idle]);
  } finally {
    clearTimeout(timer);
  }
}
