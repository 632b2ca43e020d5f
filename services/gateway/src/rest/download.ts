import { Readable } from 'node:stream';
import { getOption, hasOption, ScalarType, type DescMethod, type Message } from '@bufbuild/protobuf';
import { download as downloadOption } from '@mad/proto/rest';
import type { FastifyReply } from 'fastify';
import type { Call } from './call.ts';

/** Which file a stream is: as its proto declares (`mad.rest.v1.download`). */
export interface Download {
  contentType: string;
  /** The piece of the file that a message holds. */
  of(message: Message): Uint8Array;
}

/** The file a method's stream is. Throws at start-up on an option that names no such field. */
export function downloadOf(method: DescMethod): Download | undefined {
  if (!hasOption(method, downloadOption)) return undefined;
  const { content, contentType } = getOption(method, downloadOption);
  const fail = (why: string) => new Error(`${method.toString()}: download: ${why}`);
  if (method.methodKind !== 'server_streaming') throw fail('only a server stream is a file');
  if (contentType === '') throw fail('no content_type');
  const field = method.output.fields.find(({ name }) => name === content);
  if (field?.fieldKind !== 'scalar' || field.scalar !== ScalarType.BYTES) {
    throw fail(`no field ${content} of bytes in ${method.output.typeName}`);
  }
  return { contentType, of: (message) => (message as unknown as Record<string, Uint8Array>)[field.localName]! };
}

/**
 * Answers a stream as the file it is. What fails before the first message is answered with its own status; a file that is
 * cut later ends without its last chunk, so that no client takes it for whole.
 */
export async function answerFile(
  { reply }: Call,
  download: Download,
  messages: AsyncIterator<Message>,
): Promise<FastifyReply> {
  const first = await messages.next();
  async function* pieces(): AsyncGenerator<Uint8Array> {
    for (let next = first; !next.done; next = await messages.next()) {
      const piece = download.of(next.value);
      if (piece.length > 0) yield piece;
    }
  }
  return reply.type(download.contentType).send(Readable.from(pieces(), { objectMode: false }));
}
