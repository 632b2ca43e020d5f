import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { grpcTransport, type GrpcTransport } from '@mad/rpc';
import type { RunningProvisioner } from './running-provisioner.ts';

const MAIN = fileURLToPath(new URL('../src/main.ts', import.meta.url));
/** A process that was just started may take so long to serve while others keep the machine busy. */
export const START_MS = 60_000;

/** Provisioner in a process of its own, to be killed and started again at the same address. */
export class ProvisionerProcess {
  private child: ChildProcess | undefined;
  private readonly transports: GrpcTransport[] = [];
  private readonly mad: RunningProvisioner;
  private readonly port: number;

  private constructor(mad: RunningProvisioner, port: number) {
    this.mad = mad;
    this.port = port;
  }

  /** Reserves an address; the process is not started. */
  static async of(mad: RunningProvisioner): Promise<ProvisionerProcess> {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, 'close');
    return new ProvisionerProcess(mad, port);
  }

  start(): void {
    const environment = { PROVISIONER_PORT: String(this.port), LOG_LEVEL: 'fatal', NODE_OPTIONS: '' };
    const env = { ...process.env, ...this.mad.environment, ...environment };
    this.child = spawn(process.execPath, [MAIN], { env, stdio: ['ignore', 'ignore', 'inherit'] });
  }

  /** SIGKILL; answers when it is dead. */
  async kill(): Promise<void> {
    const victim = this.child;
    this.child = undefined;
    victim?.kill('SIGKILL');
    if (victim?.exitCode === null && victim.signalCode === null) await once(victim, 'exit');
  }

  /** A transport to it whose calls carry the token. */
  as(token: () => Promise<string>): GrpcTransport {
    const transport = grpcTransport(`127.0.0.1:${this.port}`, {
      interceptors: [
        (next) => async (request) => {
          request.header.set('authorization', `Bearer ${await token()}`);
          return next(request);
        },
      ],
    });
    this.transports.push(transport);
    return transport;
  }

  async close(): Promise<void> {
    await this.kill();
    for (const transport of this.transports) transport.close();
  }
}

/** Repeats a call until somebody serves it. */
export async function served<T>(call: () => Promise<T>): Promise<T> {
  for (const until = performance.now() + START_MS; ;) {
    try {
      return await call();
    } catch (error) {
      if (performance.now() >= until) throw error;
      await delay(20);
    }
  }
}
