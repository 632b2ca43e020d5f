import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { buffer } from 'node:stream/consumers';
import { join } from 'node:path';

/** The repository's root. */
export const ROOT = join(import.meta.dirname, '../../../../..');

/** buf itself, without the Node script that npm puts before it and that costs more than the call. */
export const buf = (): string => {
  const require = createRequire(createRequire(import.meta.url).resolve('@bufbuild/buf/package.json'));
  const program = process.platform === 'win32' ? 'buf.exe' : 'buf';
  return require.resolve(`@bufbuild/buf-${process.platform}-${process.arch}/bin/${program}`);
};

/** How a program ended. */
export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Runs a program to its end. */
export async function run(program: string, args: string[], input = ''): Promise<Ended> {
  const child = spawn(program, args, { cwd: ROOT, stdio: ['pipe', 'pipe', 'pipe'] });
  child.stdin.on('error', () => {}); // it may end without having read
  child.stdin.end(input);
  const [stdout, stderr, [code]] = await Promise.all([buffer(child.stdout), buffer(child.stderr), once(child, 'exit')]);
  return { code: code as number | null, stdout: stdout.toString(), stderr: stderr.toString() };
}

/** The first of some programs that runs with these arguments and ends well, undefined where none does. */
export function firstThatRuns(programs: string[], args: string[]): string | undefined {
  return programs.find((program) => spawnSync(program, args, { stdio: 'ignore', timeout: 30_000 }).status === 0);
}
