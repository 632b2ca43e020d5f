import { Readable } from 'node:stream';
import type { DescMethodStreaming, Message } from '@bufbuild/protobuf';
import { SECOND_MS, sleep } from '@mad/process';
import type { FastifyReply } from 'fastify';
import { jsonText, type Call } from './call.ts';
import { answerFile } from './download.ts';
import { formatFor, streamText } from './event-stream.ts';
import { problemOf } from './problem.ts';

/** An error that comes so early is answered with its own status; after that the stream begins, and is told in it. */
const EARLY_MS = SECOND_MS;

/** Answers a server stream as the file it is, else as NDJSON, or as server-sent events where the client asks for them. */
export async function answerStream(call: Call): Promise<FastifyReply> {
  const { route, gone, request, reply, options } = call;
  const end = () => gone.abort(options.streamsEnd.reason);
  if (options.streamsEnd.aborted) end();
  options.streamsEnd.addEventListener('abort', end);
  reply.raw.once('close', () => options.streamsEnd.removeEventListener('abort', end));

  const rest = messagesOf(call);
  if (route.download) return answerFile(call, route.download, rest);
  const format = formatFor(request.headers.accept);
  const first = rest.next();
  await Promise.race([first, sleep(EARLY_MS)]);

  const path = request.url.split('?')[0]!;
  const text = streamText({
    format,
    first,
    rest,
    heartbeatMs: options.heartbeatMs,
    write: (one) => ({ json: jsonText(route, one, options.registry), cursor: route.cursor?.of(one) }),
    problem(error) {
      // A client that went away is told nothing; one whose stream the gateway ends is told why.
      if (gone.signal.aborted && !options.streamsEnd.aborted) return undefined;
      const cause = options.streamsEnd.aborted ? options.streamsEnd.reason : error;
      return JSON.stringify(problemOf(cause, path, options.registry));
    },
  });
  return reply.header('x-accel-buffering', 'no').type(format.contentType).send(Readable.from(text));
}

/** The messages of a stream. It is opened in here: a service says nothing at all before its first message. */
async function* messagesOf({ route, message, header, gone }: Call): AsyncGenerator<Message> {
  const method = route.method as DescMethodStreaming;
  const response = await route.transport.stream(method, gone.signal, undefined, header, once(message) as never);
  yield* response.message as AsyncIterable<Message>;
}

async function* once<T>(value: T): AsyncGenerator<T> {
  yield value;
}
