import { spawn } from 'node:child_process';
import { mkdirSync, openSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { MINUTE_MS, SECOND_MS, sleep } from '@mad/process';
import { CommandFailure, EXIT } from './failure.ts';

/** What the local system says of itself in `<home>/local.json`. */
export interface LocalState {
  pid: number;
  /** What it is doing, for people, e.g. "migrating". */
  phase: string;
  ready: boolean;
  /** Why it could not start. */
  error?: string;
  /** The gateway. */
  url: string;
  /** Ports of each service: gRPC, and Connect over HTTP/1.1. */
  services: Record<string, { port: number; connectPort: number }>;
  postgres: { port: number; version: string };
}

/** The first administrator, made at the first start. */
export interface Administrator {
  email: string;
  password: string;
}

const MAIN = fileURLToPath(new URL('../../local/src/main.ts', import.meta.url));
const START_MS = 3 * MINUTE_MS;
const STOP_MS = 60 * SECOND_MS;
const POLL_MS = 50;

/** The file the local system and its services log to. */
export const logFile = (home: string): string => join(home, 'logs', 'system.log');

/** The files the local system keeps spans in, the older one first. */
export const spanFiles = (home: string): string[] => {
  const path = join(home, 'logs', 'spans.jsonl');
  return [`${path}.1`, path];
};

/** The state of the system in `home`, undefined when none runs there. */
export function readLocalState(home: string): LocalState | undefined {
  try {
    const state = JSON.parse(readFileSync(join(home, 'local.json'), 'utf8')) as LocalState;
    return isAlive(state.pid) ? state : undefined;
  } catch {
    return undefined;
  }
}

/** The first administrator of the system in `home`, undefined when there is no local system. */
export async function readLocalAdministrator(home: string): Promise<Administrator | undefined> {
  try {
    return JSON.parse(await readFile(join(home, 'administrator.json'), 'utf8')) as Administrator;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Starts the system as a process of its own unless it runs. Answers its state and whether this call started it. */
export async function startLocalSystem(
  home: string,
  options: { port?: number; archiveWal?: string; onPhase?: (phase: string) => void } = {},
): Promise<{ state: LocalState; started: boolean }> {
  const running = readLocalState(home);
  if (running?.ready) return { state: running, started: false };
  let pid = running?.pid;
  if (pid === undefined) {
    // Postgres may run under an account of its own, which must pass through here.
    mkdirSync(home, { recursive: true, mode: 0o711 });
    mkdirSync(join(home, 'logs'), { recursive: true, mode: 0o700 });
    const log = openSync(logFile(home), 'a', 0o600);
    const port = options.port === undefined ? [] : ['--port', String(options.port)];
    const archive = options.archiveWal === undefined ? [] : ['--archive-wal', options.archiveWal];
    const child = spawn(process.execPath, [MAIN, 'up', '--home', home, ...port, ...archive], {
      detached: true,
      stdio: ['ignore', log, log],
    });
    child.unref();
    pid = child.pid;
  }
  let phase = '';
  for (const deadline = Date.now() + START_MS; Date.now() < deadline; await sleep(POLL_MS)) {
    const state = stateOf(home, pid);
    if (state && state.phase !== phase) options.onPhase?.((phase = state.phase));
    if (state?.ready) return { state, started: true };
    if (state?.error) throw new CommandFailure(`the system did not start: ${state.error}; see ${logFile(home)}`);
    if (pid === undefined || !isAlive(pid)) {
      throw new CommandFailure(`the system ended while starting; see ${logFile(home)}`);
    }
  }
  throw new CommandFailure(`the system was not ready after ${START_MS / MINUTE_MS} minutes; see ${logFile(home)}`);
}

/** Stops the system in `home`: it finishes what is in flight first. False when none runs. */
export async function stopLocalSystem(home: string): Promise<boolean> {
  const state = readLocalState(home);
  if (!state) return false;
  process.kill(state.pid, 'SIGTERM');
  for (const deadline = Date.now() + STOP_MS; Date.now() < deadline; await sleep(POLL_MS)) {
    if (!isAlive(state.pid)) return true;
  }
  throw new CommandFailure(`process ${state.pid} has not ended after ${STOP_MS / SECOND_MS} s`, EXIT.failed);
}

/** Runs another verb of the local system's program and passes its output through. Answers its exit code. */
export function runLocal(args: string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [MAIN, ...args], { stdio: 'inherit' });
    child.once('error', reject);
    child.once('exit', (code) => resolve(code ?? EXIT.failed));
  });
}

/** Runs such a verb and answers what it said as JSON; what it says on the way is passed through. Throws when it fails. */
export async function askLocal(args: string[]): Promise<unknown> {
  const child = spawn(process.execPath, [MAIN, ...args, '--json'], { stdio: ['inherit', 'pipe', 'pipe'] });
  const ended = new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve(code ?? EXIT.failed));
  });
  const [said, complained, code] = await Promise.all([text(child.stdout), text(child.stderr), ended]);
  if (code === 0) return JSON.parse(said) as unknown;
  const lines = complained.trim().split('\n');
  let error = lines.at(-1) ?? '';
  try {
    error = (JSON.parse(error) as { error: string }).error;
  } catch {
    // It broke off with other words than its own.
  }
  throw new CommandFailure(error, code);
}

/** The state this process wrote: one of an earlier process does not count. */
function stateOf(home: string, pid: number | undefined): LocalState | undefined {
  try {
    const state = JSON.parse(readFileSync(join(home, 'local.json'), 'utf8')) as LocalState;
    return state.pid === pid ? state : undefined;
  } catch {
    return undefined;
  }
}

function isAlive(pid: number): boolean {
  // 0 and negative numbers name process groups, this one's own among them.
  if (!(pid > 0)) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
