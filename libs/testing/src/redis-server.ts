import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A Redis server of the test's own, on 127.0.0.1. */
export interface RedisServer {
  url: string;
  stop(): Promise<void>;
  start(): Promise<void>;
  /** Lets it keep its connections and answer nothing, until `thaw`. */
  freeze(): void;
  thaw(): void;
}

/** Why there is no Redis to test with, or undefined when there is the program. */
export function redisMissing(): string | undefined {
  const found = spawnSync('redis-server', ['--version']).status === 0;
  return found ? undefined : 'redis-server is not on the PATH';
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** Starts redis-server without persistence. `stop` and `start` make and end an outage on the same port. */
export async function startRedis(): Promise<RedisServer> {
  const port = await freePort();
  let running: (() => Promise<void>) | undefined;
  let signal: (name: NodeJS.Signals) => void = () => undefined;
  const start = async (): Promise<void> => {
    const dir = await mkdtemp(join(tmpdir(), 'mad-redis-'));
    const flags = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', dir];
    const child = spawn('redis-server', flags, { stdio: ['ignore', 'pipe', 'inherit'] });
    for await (const chunk of child.stdout) {
      if (String(chunk).includes('Ready to accept connections')) break;
    }
    signal = (name) => void child.kill(name);
    running = async () => {
      const exited = once(child, 'exit');
      child.kill('SIGKILL');
      await exited;
      await rm(dir, { recursive: true, force: true });
    };
  };
  await start();
  return {
    url: `redis://127.0.0.1:${port}`,
    start,
    freeze: () => signal('SIGSTOP'),
    thaw: () => signal('SIGCONT'),
    async stop() {
      await running?.();
      running = undefined;
    },
  };
}
