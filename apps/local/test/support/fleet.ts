import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startEmbeddedPostgres, type EmbeddedPostgres } from '@mad/embedded-postgres';
import { createLogger, sleep } from '@mad/process';
import type { Environment } from '../../src/environment.ts';
import { prepareGround, type LocalGround } from '../../src/start.ts';

/** The services a fleet runs, in the order they start. */
export const SERVICES = ['results', 'provisioner', 'identity', 'catalog', 'worker', 'gateway'] as const;
export type ServiceName = (typeof SERVICES)[number];

/** Every service as a process of its own on one Postgres, as containers would run it: made to be killed. */
export interface Fleet {
  url: string;
  ground: LocalGround;
  /** Ends a process at once, as a crash does, and waits until it is gone. */
  kill(service: ServiceName): Promise<void>;
  /** Stops a process where it stands; it answers nobody until `thaw`. */
  freeze(service: ServiceName): void;
  thaw(service: ServiceName): void;
  start(service: ServiceName): Promise<void>;
  /** Crashes Postgres, its sessions included, and starts it again on its data. */
  crashPostgres(): Promise<void>;
  /** The superuser's URL of a database. */
  databaseUrl(database: string): string;
  /** Who ended without having been killed, since it was asked last: nobody should, whatever happens to the others. */
  fallen(): string[];
  /** Throws where somebody ended without having been killed. */
  close(): Promise<void>;
}

const mainOf = (service: ServiceName): string =>
  fileURLToPath(new URL(`../../../../services/${service}/src/main.ts`, import.meta.url));

/** What a fleet may be told. */
export interface FleetOptions {
  postgresSettings?: Readonly<Record<string, string>>;
  /** Where each service's log is appended to `<service>.log`; where absent, they are not kept. */
  logFolder?: string;
}

/** Starts a fleet with `settings` over its own environment. */
export async function startFleet(settings: Environment = {}, options: FleetOptions = {}): Promise<Fleet> {
  const { postgresSettings = {}, logFolder } = options;
  const home = await mkdtemp(join(tmpdir(), 'mad-fleet-'));
  const logger = createLogger('fleet', { level: 'silent' });
  const ground = await prepareGround({ home, logger, anyPorts: true, outer: settings, postgresSettings });
  let postgres: EmbeddedPostgres = ground.postgres;
  const running = new Map<ServiceName, ChildProcess>();
  const unasked: string[] = [];
  const url = `http://127.0.0.1:${ground.ports.gateway}`;

  const start = async (service: ServiceName): Promise<void> => {
    const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', mainOf(service)], {
      env: { PATH: process.env.PATH, ...ground.environment },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    running.set(service, child);
    await started(service, child);
    child.once('exit', (code, signal) => {
      if (running.get(service) === child) unasked.push(`${service} ended by itself: ${code ?? signal}`);
    });
    // From here on its output is not looked at.
    if (logFolder === undefined) child.stdout.resume();
    else child.stdout.pipe(createWriteStream(join(logFolder, `${service}.log`), { flags: 'a', mode: 0o600 }));
  };
  const kill = async (service: ServiceName): Promise<void> => {
    const child = running.get(service)!;
    running.delete(service);
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  };
  const close = async () => {
    for (const service of [...SERVICES].toReversed()) if (running.has(service)) await kill(service);
    await postgres.stop();
    await rm(home, { recursive: true, force: true });
    if (unasked.length > 0) throw new Error(unasked.join('; '));
  };
  try {
    for (const service of SERVICES) await start(service);
  } catch (error) {
    await close();
    throw error;
  }
  return {
    url,
    ground,
    start,
    kill,
    fallen: () => unasked.splice(0),
    close,
    freeze: (service) => void running.get(service)!.kill('SIGSTOP'),
    thaw: (service) => void running.get(service)!.kill('SIGCONT'),
    databaseUrl: (database) => postgres.adminUrl.replace(/\/postgres$/, `/${database}`),
    async crashPostgres() {
      process.kill(postgres.pid, 'SIGKILL');
      await postgres.exited;
      const dataDir = join(home, 'postgres');
      postgres = await startEmbeddedPostgres({ dataDir, port: ground.postgres.port, settings: postgresSettings });
    },
  };
}

/** Waits until a service says it has started; passes its output on when it ends instead. */
async function started(service: ServiceName, child: ChildProcess): Promise<void> {
  let output = '';
  await new Promise<void>((resolve, reject) => {
    child.stdout!.on('data', (chunk: Buffer) => {
      if (output.length > 1_000_000) output = '';
      output += chunk.toString();
      if (output.includes('"msg":"started"')) resolve();
    });
    child.once('exit', (code) => reject(new Error(`${service} ended with ${code}: ${output.slice(-2_000)}`)));
  });
  child.stdout!.removeAllListeners('data');
}

/** Asks again until an answer is there; throws with `what` after `timeoutMs`. */
export async function eventually<T>(
  what: string,
  ask: () => Promise<T | undefined | false>,
  timeoutMs = 60_000,
): Promise<T> {
  let last: unknown;
  for (const deadline = Date.now() + timeoutMs; Date.now() < deadline; await sleep(25)) {
    try {
      const answer = await ask();
      if (answer !== undefined && answer !== false) return answer;
    } catch (error) {
      last = error;
    }
  }
  throw new Error(`${what}: not after ${timeoutMs} ms`, { cause: last });
}
