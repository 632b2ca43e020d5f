import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect, createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

export interface PgBouncer {
  port: number;
  stop(): Promise<void>;
}

/** Who may log in, and what stands in the pooler's settings beyond transaction pooling. */
export interface PgBouncerOptions {
  upstreamPort: number;
  users: readonly { user: string; password: string }[];
  settings: Readonly<Record<string, string | number>>;
}

/** The version of the installed PgBouncer; undefined without one. */
export function pgBouncerVersion(): string | undefined {
  try {
    return execFileSync('pgbouncer', ['--version'], { encoding: 'utf8' }).split('\n')[0];
  } catch {
    return undefined;
  }
}

/** Starts the installed PgBouncer in front of a Postgres server, in transaction mode. */
export async function startPgBouncer({ upstreamPort, users, settings }: PgBouncerOptions): Promise<PgBouncer> {
  const folder = await mkdtemp(join(tmpdir(), 'mad-pgbouncer-'));
  const port = await freePort();
  const lines = {
    listen_addr: '127.0.0.1',
    listen_port: port,
    unix_socket_dir: '',
    auth_type: 'plain',
    auth_file: join(folder, 'users'),
    pool_mode: 'transaction',
    max_client_conn: 10_000,
    ignore_startup_parameters: 'options,extra_float_digits',
    log_connections: 0,
    log_disconnections: 0,
    log_pooler_errors: 0,
    ...settings,
  };
  const text = Object.entries(lines).map(([name, value]) => `${name} = ${value}`);
  const ini = join(folder, 'pgbouncer.ini');
  await writeFile(ini, `[databases]\n* = host=127.0.0.1 port=${upstreamPort}\n[pgbouncer]\n${text.join('\n')}\n`);
  await writeFile(join(folder, 'users'), users.map(({ user, password }) => `"${user}" "${password}"\n`).join(''));
  const asRoot = process.getuid?.() === 0;
  if (asRoot) execFileSync('chown', ['-R', 'nobody', folder]);
  await chmod(folder, 0o700);
  // It refuses to run as root.
  const child = spawn('pgbouncer', ['-q', ...(asRoot ? ['-u', 'nobody'] : []), ini], { stdio: 'ignore' });
  const stop = async (): Promise<void> => {
    if (child.exitCode === null) {
      child.kill('SIGTERM');
      await once(child, 'exit');
    }
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await listening(child, port);
  } catch (error) {
    await stop();
    throw error;
  }
  return { port, stop };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

async function listening(child: ChildProcess, port: number): Promise<void> {
  for (let tries = 0; tries < 500 && child.exitCode === null; tries += 1) {
    const socket = connect(port, '127.0.0.1');
    const up = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (up) return;
    await delay(10);
  }
  throw new Error('pgbouncer did not start');
}
