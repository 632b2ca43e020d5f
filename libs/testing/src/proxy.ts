import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

/** What becomes of the connection that is open once so many more bytes have come from the server, or from the client. */
export interface Fault {
  /** `cut`: reset. `stall`: nothing passes any more, either way, and nobody is told. */
  kind: 'cut' | 'stall';
  afterBytes: number;
  /** Whose bytes count; the server's unless told. */
  from?: 'server' | 'client';
}

/** A TCP proxy that breaks when and how it is told to. */
export interface Proxy {
  port: number;
  /** Arms a fault for the connections that are open now. */
  break(fault: Fault): void;
  /** True makes new connections stay silent, as behind a firewall that drops. */
  silent: boolean;
  /** What a server says as it goes: sent in one piece with its next greeting (ReadyForQuery), which ends that connection. */
  farewell?: Buffer;
  /** When new connections came, in the milliseconds of `performance.now()`. */
  accepted: number[];
  /** Bytes that have passed so far. */
  passed: { server: number; client: number };
  close(): Promise<void>;
}

/** Postgres takes a question now, and no transaction is open (PostgreSQL documentation, "Message Formats"). */
const READY = Buffer.from([0x5a, 0, 0, 0, 5, 0x49]);

/** An error that ends a session, as Postgres sends it. */
export function errorResponse(code: string, message: string): Buffer {
  const fields = ['SFATAL', 'VFATAL', `C${code}`, `M${message}`].map((field) => `${field}\0`).join('');
  const body = Buffer.from(`${fields}\0`);
  const head = Buffer.alloc(5, 'E');
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

interface Pair {
  client: Socket;
  server: Socket;
  fault?: Fault;
}

export async function openProxy(target: { host: string; port: number }): Promise<Proxy> {
  const pairs = new Set<Pair>();
  const sockets = new Set<Socket>();
  const listener = createServer((client) => {
    proxy.accepted.push(performance.now());
    sockets.add(client);
    client.on('error', () => undefined);
    if (proxy.silent) return;
    const server = connect(target.port, target.host);
    server.on('error', () => client.destroy());
    sockets.add(server);
    const pair: Pair = { client, server };
    pairs.add(pair);
    const end = (): void => {
      if (pair.fault?.kind === 'stall' && pair.fault.afterBytes <= 0) return;
      pairs.delete(pair);
      client.destroy();
      server.destroy();
    };
    const pass = (from: 'server' | 'client', to: Socket, bytes: Buffer): void => {
      if (isStalled(pair)) return;
      proxy.passed[from] += bytes.length;
      if (from === 'server' && proxy.farewell !== undefined && bytes.subarray(-READY.length).equals(READY)) {
        client.end(Buffer.concat([bytes, proxy.farewell]));
        proxy.farewell = undefined;
        return;
      }
      const fault = (pair.fault?.from ?? 'server') === from ? pair.fault : undefined;
      to.write(fault === undefined ? bytes : bytes.subarray(0, Math.max(0, fault.afterBytes)));
      if (fault === undefined) return;
      fault.afterBytes -= bytes.length;
      if (fault.afterBytes > 0 || fault.kind === 'stall') return;
      // What was written arrives, then the reset.
      setImmediate(() => {
        client.resetAndDestroy();
        server.destroy();
      });
    };
    client.on('close', end).on('data', (bytes) => pass('client', server, bytes));
    server.on('close', end).on('data', (bytes) => pass('server', client, bytes));
  });
  const proxy: Proxy = {
    port: 0,
    silent: false,
    accepted: [],
    passed: { server: 0, client: 0 },
    break(fault) {
      for (const pair of pairs) pair.fault = { ...fault };
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      listener.close();
      await once(listener, 'close');
    },
  };
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  proxy.port = (listener.address() as AddressInfo).port;
  return proxy;
}

function isStalled({ fault }: Pair): boolean {
  return fault?.kind === 'stall' && fault.afterBytes <= 0;
}
