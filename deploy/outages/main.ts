import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { SECOND_MS } from '@mad/process';
import { createOutput, duration, table } from '../../apps/cli/src/output.ts';
import { runningServices } from './containers.ts';
import { outage, type Outage } from './outage.ts';
import { makeUsers } from './users.ts';

const USAGE = `node deploy/outages/main.ts [--only a,b] [--kill] [--away seconds] [--url gateway] [--json]

Stops one service of docker-compose.yml after the other under load, starts it again, and looks what was lost.

  --only   these services instead of all that run
  --kill   without asking them, as a power cut does
  --away   seconds each is away, 1 to 120: 20
  --url    the gateway: MAD_URL, or http://127.0.0.1:<MAD_PORT or 8080>

Exit codes: 0 nothing was lost and everything came back, 1 not so, 2 wrong usage.
`;
const PROJECT = fileURLToPath(new URL('../../', import.meta.url));
const MAX_AWAY_S = 120;

interface Options {
  only: string[] | undefined;
  kill: boolean;
  awayMs: number;
  url: string;
  json: boolean;
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      kill: { type: 'boolean', default: false },
      away: { type: 'string', default: '20' },
      url: { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  });
  const away = Number(values.away);
  if (!(away >= 1 && away <= MAX_AWAY_S)) throw new Error(`--away must be 1 to ${MAX_AWAY_S} seconds`);
  const local = `http://127.0.0.1:${process.env['MAD_PORT'] ?? '8080'}`;
  return {
    only: values.only?.split(','),
    kill: values.kill,
    awayMs: away * SECOND_MS,
    url: values.url ?? process.env['MAD_URL'] ?? local,
    json: values.json,
  };
}

/** What users saw, for people: the kinds of calls that failed, of how many, and how. */
function seen({ calls }: Outage): string {
  const failed = Object.entries(calls).flatMap(([kind, { made, failed: problems }]) => {
    const parts = Object.entries(problems).map(([problem, count]) => `${count} ${problem}`);
    return parts.length === 0 ? [] : [`${kind}: ${parts.join(', ')} of ${made}`];
  });
  return failed.join('; ') || 'nothing';
}

function back({ back_ms: ms }: Outage): string {
  if (ms === null) return '–';
  return ms === -1 ? 'never' : duration(ms);
}

async function main(options: Options): Promise<number> {
  const output = createOutput(options.json);
  const running = await runningServices();
  const services = options.only ?? running;
  for (const service of services) {
    if (!running.includes(service)) throw new Error(`--only: ${service} does not run; running: ${running.join(', ')}`);
  }
  output.note('making two organizations, A and B');
  const folder = resolve(PROJECT, process.env['MAD_SECRETS'] ?? 'deploy/compose/secrets');
  const users = await makeUsers(options.url, {
    email: process.env['MAD_ADMIN_EMAIL'] ?? 'admin@mad.example',
    passwordFile: join(folder, 'identity_admin_password'),
  });
  const outages: Outage[] = [];
  // Interrupted in the middle, it must not leave the system without a part.
  const interrupted = new AbortController();
  const interrupt = () => interrupted.abort(new Error('interrupted'));
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
  try {
    for (const service of services) {
      output.note(`${service} ${options.kill ? 'is killed' : 'stops'} for ${duration(options.awayMs)}`);
      const one = await outage({ ...options, service, users, signal: interrupted.signal });
      outages.push(one);
      output.note(`  users saw: ${seen(one)}; lost: ${one.lost.length} of ${one.jobs} jobs; back after ${back(one)}`);
      for (const loss of one.lost) output.note(`  LOST ${loss}`);
    }
  } finally {
    await users.close();
  }
  const rows = outages.map((one) => [
    one.stopped,
    `${duration(one.stop_ms)}, ${[...new Set(one.exit_codes)].join(' ')}`,
    seen(one),
    one.jobs,
    one.lost.length,
    back(one),
  ]);
  output.answer(outages, table(['stopped', 'ended after, exit code', 'users saw', 'jobs', 'lost', 'back after'], rows));
  return outages.every(({ lost, back_ms: ms }) => lost.length === 0 && ms !== -1) ? 0 : 1;
}

let options: Options | undefined;
try {
  options = readOptions();
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n\n${USAGE}`);
  process.exitCode = 2;
}
if (options) {
  try {
    process.exitCode = await main(options);
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
    process.exitCode = 1;
  }
}
