import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';

const NAME = 'objects';

/** A request that waits when it has arrived whole. */
export interface Held {
  /** Resolves when it is there. */
  arrived: Promise<void>;
  /** Does what is asked, and tells the client unless `answered` is false. */
  release(options?: { answered: boolean }): void;
}

/** A bucket in memory, as far as objects need one, whose changes can be held. */
export interface Bucket {
  /** As `OBJECT_STORE_URL` names it. */
  url: string;
  /** What it has, by key. */
  objects: ReadonlyMap<string, Buffer>;
  /** Holds the next request of this method. */
  hold(method: 'PUT' | 'DELETE'): Held;
  close(): Promise<void>;
}

/** Opens a bucket, and sets the credentials that its clients send. */
export async function openBucket(): Promise<Bucket> {
  Object.assign(process.env, { AWS_ACCESS_KEY_ID: 'anybody', AWS_SECRET_ACCESS_KEY: 'anything' });
  const objects = new Map<string, Buffer>();
  let next: { method: string; take: (change: () => void, end: () => void) => void } | undefined;

  const answer = async (asked: IncomingMessage, into: ServerResponse): Promise<void> => {
    const { pathname, searchParams } = new URL(asked.url!, 'http://bucket');
    const key = pathname.slice(`/${NAME}/`.length);
    const body = await buffer(asked);
    const content = objects.get(key);
    const end = (status: number, what: Buffer = Buffer.alloc(0)): void => {
      into.writeHead(status, { etag: '"1"', 'content-length': what.length }).end(what);
    };
    const make = (change: () => void, status: number): void => {
      const held = next?.method === asked.method ? next : undefined;
      if (held !== undefined) {
        next = undefined;
        return held.take(change, () => end(status));
      }
      change();
      end(status);
    };
    switch (asked.method) {
      case 'PUT':
        return make(() => void objects.set(key, body), 200);
      case 'DELETE':
        return make(() => void objects.delete(key), 204);
      default: {
        // Nobody has begun an upload of several parts.
        if (searchParams.has('uploads')) return end(501);
        if (content === undefined) return end(404);
        if (asked.method === 'HEAD') return end(200);
        const [, from = '', to = ''] = /^bytes=(\d+)-(\d+)$/.exec(asked.headers.range ?? '') ?? [];
        return from === '' ? end(200, content) : end(206, content.subarray(Number(from), Number(to) + 1));
      }
    }
  };
  const server = createServer((asked, into) => {
    answer(asked, into).catch((error: unknown) => into.destroy(error as Error));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const endpoint = `http://127.0.0.1:${port}`;
  return {
    url: `s3://${NAME}/?${new URLSearchParams({ endpoint }).toString()}`,
    objects,
    hold(method) {
      const { promise: arrived, resolve: arrive } = Promise.withResolvers<void>();
      let release: Held['release'] = () => {
        throw new Error(`no ${method} has arrived`);
      };
      const take = (change: () => void, end: () => void): void => {
        release = ({ answered } = { answered: true }) => {
          change();
          if (answered) end();
        };
        arrive();
      };
      next = { method, take };
      return { arrived, release: (options) => release(options) };
    },
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}
