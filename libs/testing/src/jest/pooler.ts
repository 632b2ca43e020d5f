import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chown, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect, createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

/** PgBouncer in front of the run's server. */
export interface Pooler {
  port: number;
  stop(): Promise<void>;
}

/** Debian installs it beside the daemons, where an ordinary PATH does not look. */
const PROGRAMS = ['pgbouncer', '/usr/sbin/pgbouncer'];
const START_MS = 10_000;
const LOG_TAIL = 2_000;
/** It refuses to run as root; `nobody`, as the embedded Postgres. */
const NOBODY = 65_534;
/** Few, so that transactions of one client land on different connections and those of many on the same. */
const CONNECTIONS = 4;

/** Why there is no PgBouncer to test with, or undefined when there is the program. */
export function poolerMissing(): string | undefined {
  return program() === undefined ? 'pgbouncer is not installed' : undefined;
}

function program(): string | undefined {
  return PROGRAMS.find((name) => spawnSync(name, ['--version']).status === 0);
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

async function accepts(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  const connected = await Promise.race([once(socket, 'connect'), once(socket, 'error')]).then(
    () => !socket.errored,
    () => false,
  );
  socket.destroy();
  return connected;
}

/**
 * Starts PgBouncer in transaction mode on 127.0.0.1 before the server at `host`:`port`, for these logins. Connections
 * of the server are handed out in turn, so that whoever relies on a session's memory fails soon.
 */
export async function startPooler(
  server: { host: string; port: number },
  logins: Readonly<Record<string, string>>,
): Promise<Pooler> {
  const name = program();
  if (name === undefined) throw new Error('pgbouncer is not installed');
  const port = await freePort();
  const folder = await mkdtemp(join(tmpdir(), 'mad-pgbouncer-'));
  const users = join(folder, 'users.txt');
  const settings = join(folder, 'pgbouncer.ini');
  const log = join(folder, 'log');
  await writeFile(
    users,
    Object.entries(logins)
      .map(([role, password]) => `"${role}" "${password}"\n`)
      .join(''),
    {
      mode: 0o600,
    },
  );
  await writeFile(
    settings,
    `[databases]
* = host=${server.host} port=${server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = ${users}
pool_mode = transaction
default_pool_size = ${CONNECTIONS}
server_round_robin = 1
max_client_conn = 1000
logfile = ${log}
`,
    { mode: 0o600 },
  );
  const root = process.getuid?.() === 0;
  if (root) for (const path of [folder, users, settings]) await chown(path, NOBODY, NOBODY);
  const account = root ? { uid: NOBODY, gid: NOBODY } : {};
  const child = spawn(name, ['--quiet', settings], { ...account, cwd: '/', stdio: 'ignore' });
  const exited = once(child, 'exit');
  for (const end = Date.now() + START_MS; !(await accepts(port)); await delay(20)) {
    if (child.exitCode !== null) {
      const said = await readFile(log, 'utf8').catch(() => '');
      throw new Error(`pgbouncer ended with exit code ${child.exitCode}: ${said.slice(-LOG_TAIL)}`);
    }
    if (Date.now() > end) throw new Error('pgbouncer did not listen in time');
  }
  // It must not keep a process alive that has nothing else to do.
  child.unref();
  return {
    port,
    async stop() {
      child.ref();
      child.kill('SIGTERM');
      await exited;
      await rm(folder, { recursive: true, force: true });
    },
  };
}
