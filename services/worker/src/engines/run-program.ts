import { spawn } from 'node:child_process';
import { once } from 'node:events';

/** Bytes of standard error kept for the error message: its end, where programs say why they stop. */
const STDERR_BYTES = 2_000;

/** Bytes of standard output a program may write. */
const STDOUT_BYTES = 8 * 1_024 * 1_024;

export interface RunOptions {
  /** The working directory; also HOME and TMPDIR, so that nothing is written elsewhere. */
  cwd: string;
  /** Where programs are looked for (PATH). Nothing else of this process's environment is handed on. */
  searchPath: string;
  signal: AbortSignal;
  timeoutMs: number;
  /** Written to standard input. */
  input?: string;
}

/** A program that could not be started, failed, or took too long. */
export class ProgramError extends Error {
  /** Whether its time ran out. */
  readonly timedOut: boolean;

  constructor(message: string, timedOut = false, options?: ErrorOptions) {
    super(message, options);
    this.name = 'ProgramError';
    this.timedOut = timedOut;
  }
}

/**
 * Runs a program to its end, in a process group of its own that is killed whole when the signal or the time says so.
 * @returns what it wrote to standard output.
 * @throws ProgramError with the end of what it said; the signal's reason when aborted.
 */
export async function runProgram(command: string, args: readonly string[], options: RunOptions): Promise<string> {
  const { cwd, searchPath, signal, timeoutMs, input } = options;
  signal.throwIfAborted();
  const env = { PATH: searchPath, HOME: cwd, TMPDIR: cwd, LC_ALL: 'C' };
  const child = spawn(command, args, { cwd, env, detached: true, stdio: ['pipe', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  let timedOut = false;
  const kill = () => killGroup(child.pid);
  const timer = setTimeout(() => {
    timedOut = true;
    kill();
  }, timeoutMs);
  signal.addEventListener('abort', kill, { once: true });
  // A program may end without reading its input; that is told by its exit code, not by a broken pipe.
  child.stdin.on('error', () => undefined).end(input ?? '');
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    if (stdout.length > STDOUT_BYTES) kill();
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-STDERR_BYTES);
  });
  try {
    const [code, killedBy] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
    signal.throwIfAborted();
    if (timedOut) throw new ProgramError(`${command} took longer than ${timeoutMs} ms`, true);
    if (stdout.length > STDOUT_BYTES) throw new ProgramError(`${command} wrote more than ${STDOUT_BYTES} bytes`);
    if (code === 0) return stdout;
    const ending = killedBy ? `was ended by ${killedBy}` : `ended with exit code ${code}`;
    const said = stderr.trim() || stdout.slice(-STDERR_BYTES).trim();
    throw new ProgramError(`${command} ${ending}: ${said || 'it said nothing'}`);
  } catch (error) {
    if (error instanceof ProgramError || signal.aborted) throw error;
    throw new ProgramError(`${command} could not be started`, false, { cause: error });
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', kill);
  }
}

/** Ends a process and all it started; it may have ended already. */
function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
