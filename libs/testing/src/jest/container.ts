import { hostname } from 'node:os';
import { SERVER_SETTINGS } from '@mad/embedded-postgres';
import type { Env } from '@mad/process';
import { alive } from './alive.ts';
import { askEngine } from './docker-engine.ts';
import type { TestServer } from './test-server.ts';

/** The machine and the process whose run a container belongs to. */
const HOST_LABEL = 'mad.test-run.host';
const PID_LABEL = 'mad.test-run.pid';

/** The image that production runs, or the one a run names. */
export function postgresImage(env: Env): string {
  return env['MAD_TEST_POSTGRES_IMAGE'] ?? 'postgres:16';
}

/** Why no container of Postgres can be started here; undefined when an engine answers and has the image. */
export async function whyNoContainer(env: Env): Promise<string | undefined> {
  const image = postgresImage(env);
  try {
    const { status } = await askEngine(env, 'GET', `/images/${encodeURIComponent(image)}/json`);
    if (status === 200) return undefined;
    return status === 404 ? `no image ${image}: docker pull ${image}` : `the Docker engine answered ${status}`;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Removes the containers of this machine's runs that were killed before their teardown. */
export async function removeAbandonedContainers(env: Env): Promise<void> {
  const filters = encodeURIComponent(JSON.stringify({ label: [`${HOST_LABEL}=${hostname()}`] }));
  const { body } = await askEngine(env, 'GET', `/containers/json?all=true&filters=${filters}`);
  for (const { Id: id, Labels: labels } of body as { Id: string; Labels: Record<string, string> }[]) {
    if (!alive(Number(labels[PID_LABEL]))) await askEngine(env, 'DELETE', `/containers/${id}?force=true&v=true`);
  }
}

/** Starts Postgres in a container. The library is loaded only here: it takes 0.3 s. */
export async function startContainer(env: Env, settings: Readonly<Record<string, string>>): Promise<TestServer> {
  await removeAbandonedContainers(env);
  // Its reaper is one more image to have; what is left behind goes at the next start, as with embedded servers.
  process.env['TESTCONTAINERS_RYUK_DISABLED'] ??= 'true';
  const { GenericContainer, Wait } = await import('testcontainers');
  const password = 'only-for-this-container';
  const flags = Object.entries({ ...SERVER_SETTINGS, ...settings }).flatMap(([name, value]) => [
    '-c',
    `${name}=${value}`,
  ]);
  const started = await new GenericContainer(postgresImage(env))
    .withLabels({ [HOST_LABEL]: hostname(), [PID_LABEL]: String(process.pid) })
    .withEnvironment({ POSTGRES_PASSWORD: password })
    .withCommand(['postgres', ...flags])
    .withExposedPorts(5432)
    // The first start only prepares the data; the second one stays.
    .withWaitStrategy(Wait.forLogMessage(/ready to accept connections/, 2))
    .start();
  const place = `${started.getHost()}:${started.getMappedPort(5432)}`;
  return {
    kind: 'container',
    adminUrl: `postgres://postgres:${password}@${place}/postgres?sslmode=disable`,
    async stop() {
      await started.stop();
    },
  };
}
