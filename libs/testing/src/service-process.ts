import { spawn, type ChildProcess } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { Interceptor } from '@connectrpc/connect';
import { MINUTE_MS, sleep } from '@mad/process';
import { grpcTransport, type GrpcTransport } from '@mad/rpc';

/** A process that was just started may take so long to serve while others keep the machine busy. */
export const START_MS = MINUTE_MS;
const RETRY_MS = 20;
const LOWEST_PORT = 10_000;
const EPHEMERAL_PORT = 32_768;

/** A service in a process of its own, to be killed and started again at the same address. */
export class ServiceProcess {
  #child: ChildProcess | undefined;
  readonly #service: string;
  readonly #environment: Readonly<Record<string, string>>;
  readonly #port: number;
  readonly #transports: GrpcTransport[] = [];

  private constructor(service: string, environment: Readonly<Record<string, string>>, port: number) {
    this.#service = service;
    this.#environment = environment;
    this.#port = port;
  }

  /** Reserves an address for `services/<service>`; the process is not started. Its settings are read at each start. */
  static async of(service: string, environment: Readonly<Record<string, string>>): Promise<ServiceProcess> {
    const port = await lastingPort();
    return new ServiceProcess(service, environment, port);
  }

  /** Begins to start it, with `more` over its settings; `served` waits for it. One that lives goes on as it is. */
  start(more: Readonly<Record<string, string>> = {}): void {
    if (this.#child?.exitCode === null && this.#child.signalCode === null) return;
    const prefix = this.#service.toUpperCase();
    const own = {
      [`${prefix}_PORT`]: String(this.#port),
      [`${prefix}_CONNECT_PORT`]: '0',
      LOG_LEVEL: 'fatal',
      NODE_OPTIONS: '',
    };
    const main = fileURLToPath(new URL(`../../../services/${this.#service}/src/main.ts`, import.meta.url));
    const env = { ...process.env, ...this.#environment, ...own, ...more };
    this.#child = spawn(process.execPath, [main], { env, stdio: ['ignore', 'ignore', 'inherit'] });
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

  /** A transport to it, closed with it. */
  transport(interceptors: Interceptor[] = []): GrpcTransport {
    const transport = grpcTransport(this.address, { interceptors });
    this.#transports.push(transport);
    return transport;
  }

  /** A transport to it whose calls carry the token. */
  as(token: () => Promise<string>): GrpcTransport {
    return this.transport([
      (next) => async (request) => {
        request.header.set('authorization', `Bearer ${await token()}`);
        return next(request);
      },
    ]);
  }

  async close(): Promise<void> {
    await this.kill();
    for (const transport of this.#transports) transport.close();
  }
}

/** A free port below those that outgoing connections get (Linux: 32768 on): while its process is dead nobody else takes it. */
async function lastingPort(): Promise<number> {
  for (;;) {
    const server = createServer().listen(randomInt(LOWEST_PORT, EPHEMERAL_PORT), '127.0.0.1');
    const free = await once(server, 'listening').then(
      () => true,
      () => false,
    );
    if (!free) continue;
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, 'close');
    return port;
  }
}

/** Repeats a call until somebody serves it. */
export async function served<T>(call: () => Promise<T>): Promise<T> {
  for (const until = performance.now() + START_MS; ;) {
    try {
      return await call();
    } catch (error) {
      if (performance.now() >= until) throw error;
      await sleep(RETRY_MS);
    }
  }
}
