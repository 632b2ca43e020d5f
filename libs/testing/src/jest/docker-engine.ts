import { existsSync } from 'node:fs';
import { request } from 'node:http';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { SECOND_MS, type Env } from '@mad/process';

/** A living engine answers within milliseconds; a socket that only accepts must not hold up a run. */
const PATIENCE_MS = 2 * SECOND_MS;

/** What the engine answered: an HTTP status, and JSON where it sent any. */
export interface EngineAnswer {
  status: number;
  body: unknown;
}

/** Where the Docker client would look: DOCKER_HOST, else the sockets of a system's, a rootless or a desktop engine. */
function engineAt(env: Env): { socketPath: string } | { host: string; port: number } {
  const given = env['DOCKER_HOST'];
  if (given) {
    if (!URL.canParse(given)) throw new Error(`DOCKER_HOST is not a URL: ${given}`);
    const { protocol, pathname, hostname, port } = new URL(given);
    if (protocol === 'unix:') return { socketPath: pathname };
    if (protocol === 'tcp:' || protocol === 'http:') return { host: hostname, port: Number(port || '2375') };
    throw new Error(`DOCKER_HOST must be unix:// or tcp://, not ${protocol}//`);
  }
  const system = '/var/run/docker.sock';
  const user = env['XDG_RUNTIME_DIR'];
  const others = [...(user ? [join(user, 'docker.sock')] : []), join(homedir(), '.docker', 'run', 'docker.sock')];
  return { socketPath: [system, ...others].find((path) => existsSync(path)) ?? system };
}

/**
 * One request of the Docker Engine's HTTP API, e.g. `GET /images/postgres:16/json`. Rejects within two seconds when no
 * engine answers.
 */
export async function askEngine(env: Env, method: 'GET' | 'DELETE', path: string): Promise<EngineAnswer> {
  const place = engineAt(env);
  const name = 'socketPath' in place ? place.socketPath : `${place.host}:${place.port}`;
  return new Promise((resolve, reject) => {
    const fail = (why: string) => reject(new Error(`no Docker engine at ${name}: ${why}`));
    const asked = request({ ...place, method, path, agent: false, signal: AbortSignal.timeout(PATIENCE_MS) });
    const failed = (error: NodeJS.ErrnoException) =>
      fail(error.name === 'AbortError' ? `no answer within ${PATIENCE_MS} ms` : (error.code ?? error.message));
    asked.on('error', failed);
    asked.on('response', (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('error', failed);
      response.on('data', (part: string) => (text += part));
      response.on('end', () => {
        try {
          resolve({ status: response.statusCode!, body: text === '' ? undefined : JSON.parse(text) });
        } catch {
          fail('it does not speak JSON');
        }
      });
    });
    asked.end();
  });
}
