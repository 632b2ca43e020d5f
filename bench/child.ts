import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, openSync, closeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { SECOND_MS } from '@mad/process';

const START_TIMEOUT_MS = 120 * SECOND_MS;
const STOP_TIMEOUT_MS = 30 * SECOND_MS;

/** A process of ours whose thread the client does not share. */
export interface Program<Ready> {
  /** What the program said when it was ready. */
  ready: Ready;
  stop(): Promise<void>;
}

/**
 * Starts `programs/<name>.ts` in a process of its own and waits for its first message, `timeoutMs` at most. Its standard output goes to
 * `results/<name>.log`. It ends when `stop` closes the channel, or this process ends.
 */
export async function startProgram<Ready>(
  name: string,
  args: readonly string[] = [],
  timeoutMs = START_TIMEOUT_MS,
): Promise<Program<Ready>> {
  const folder = fileURLToPath(new URL('results/', import.meta.url));
  mkdirSync(folder, { recursive: true });
  const log = openSync(`${folder}${name}.log`, 'w', 0o600);
  const child = fork(new URL(`programs/${name}.ts`, import.meta.url), args, {
    stdio: ['ignore', log, 'inherit', 'ipc'],
    serialization: 'advanced',
  });
  closeSync(log);
  return { ready: (await firstMessage(child, name, timeoutMs)) as Ready, stop: () => stop(child) };
}

async function firstMessage(child: ChildProcess, name: string, timeoutMs: number): Promise<unknown> {
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  const timer = setTimeout(() => reject(new Error(`${name} was not ready in time`)), timeoutMs);
  const onExit = (code: number | null): void => reject(new Error(`${name} ended with exit code ${code}`));
  child.once('message', resolve).once('exit', onExit);
  try {
    return await promise;
  } catch (error) {
    await stop(child);
    throw error;
  } finally {
    clearTimeout(timer);
    child.off('exit', onExit);
  }
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS);
  if (child.connected) child.disconnect();
  await exited;
  clearTimeout(timer);
}

/** In a program: says that it is ready, and closes when whoever started it stops it or is gone. */
export function serveProgram(ready: object, close: () => Promise<void>): void {
  const end = (): void => void close().then(() => process.exit(0));
  // Whoever started it may have gone while it was starting.
  if (!process.connected) return end();
  process.once('disconnect', end);
  process.send!(ready);
}

/** In a program that works before it is ready and holds nothing it must close: ends when whoever started it is gone. */
export function endWithParent(): void {
  process.once('disconnect', () => process.exit(1));
}

/** In a program: Ctrl-C reaches the whole group, and the one who started this decides what it means. */
export function leaveSignalsToParent(): void {
  process.on('SIGINT', () => undefined);
}
