import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { sleep } from '@mad/process';
import { grpcTransport, type GrpcTransport } from '@mad/rpc';
import type { World } from './world.ts';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
/** A process that was just started may take so long to serve while others keep the machine busy. */
const START_MS = 60_000;

/** Results in a process of its own beside a world, to be killed and started again at the same address. */
export class ResultsProcess {
  #child: ChildProcess | undefined;
  readonly #world: World;
  readonly #port: number;
  readonly transport: GrpcTransport;

  private constructor(world: World, port: number) {
    this.#world = world;
    this.#port = port;
    this.transport = grpcTransport(`127.0.0.1:${port}`);
  }

  /** Reserves an address; the process is not started. */
  static async of(world: World): Promise<ResultsProcess> {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, 'close');
    return new ResultsProcess(world, port);
  }

  start(environment: Record<string, string> = {}): void {
    const own = { RESULTS_PORT: String(this.#port), RESULTS_CONNECT_PORT: '0', LOG_LEVEL: 'fatal', NODE_OPTIONS: '' };
    const env = { ...process.env, ...this.#world.environment, ...own, ...environment };
    this.#child = spawn(process.execPath, [MAIN], { env, stdio: ['ignore', 'ignore', 'inherit'] });
  }

  /** host:port of its gRPC. */
  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  /** SIGKILL; answers when it is dead. */
  async kill(): Promise<void> {
    const victim = this.#child;
    this.#child = undefined;
    victim?.kill('SIGKILL');
    if (victim?.exitCode === null && victim.signalCode === null) await once(victim, 'exit');
  }

  /** The most memory it ever had, MiB. */
  async peakMb(): Promise<number> {
    const status = await readFile(`/proc/${this.#child!.pid}/status`, 'utf8');
    return Number(/VmHWM:\s+(\d+)/.exec(status)![1]) / 1024;
  }

  async close(): Promise<void> {
    await this.kill();
    this.transport.close();
  }
}

/** Repeats a call until somebody serves it. */
export async function served<T>(call: () => Promise<T>): Promise<T> {
  for (const until = performance.now() + START_MS; ;) {
    try {
      return await call();
    } catch (error) {
      if (performance.now() >= until) throw error;
      await sleep(20);
    }
  }
}
