import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { MINUTE_MS } from '@mad/process';

const PROJECT = fileURLToPath(new URL('../../', import.meta.url));
const run = promisify(execFile);

async function docker(...args: string[]): Promise<string[]> {
  const { stdout } = await run('docker', args, { cwd: PROJECT, timeout: 2 * MINUTE_MS });
  return stdout.split('\n').filter((line) => line !== '');
}

/** The services of docker-compose.yml that run. Throws where there is no Docker. */
export async function runningServices(): Promise<string[]> {
  return (await docker('compose', 'ps', '--services', '--status', 'running')).toSorted();
}

/** The containers of a service that run. */
export function containersOf(service: string): Promise<string[]> {
  return docker('compose', 'ps', '--quiet', '--status', 'running', service);
}

/** Ends containers: as `docker stop` does, each with its own signal and its own time, or as a power cut does. */
export async function end(containers: readonly string[], kill: boolean): Promise<void> {
  await docker(kill ? 'kill' : 'stop', ...containers);
}

/** How containers ended: 0 when they had the time to. */
export async function exitCodes(containers: readonly string[]): Promise<number[]> {
  return (await docker('inspect', '--format', '{{.State.ExitCode}}', ...containers)).map(Number);
}

/** Starts them again. */
export async function start(containers: readonly string[]): Promise<void> {
  await docker('start', ...containers);
}
