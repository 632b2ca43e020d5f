import { SECOND_MS, sleep } from '@mad/process';
import { containersOf, end, exitCodes, start } from './containers.ts';
import { startLoad, type Call } from './load.ts';
import { losses } from './loss.ts';
import type { Users } from './users.ts';

const BEFORE_MS = 4 * SECOND_MS;
const AFTER_MS = 3 * SECOND_MS;
/** A system that is not back by then does not come back by itself. */
const BACK_MS = 60 * SECOND_MS;
const LOOK_MS = SECOND_MS / 4;

export interface OutageOptions {
  url: string;
  service: string;
  /** True ends the containers without asking them. */
  kill: boolean;
  awayMs: number;
  users: Users;
  /** Aborting it ends the outage, and starts the containers again. */
  signal: AbortSignal;
}

/** What one outage did. */
export interface Outage {
  /** What was ended, and whose data it held. */
  stopped: string;
  /** Milliseconds the containers took to end, and their exit codes. */
  stop_ms: number;
  exit_codes: number[];
  /** Calls by kind, with the failed ones by their problem. */
  calls: Record<string, { made: number; failed: Record<string, number> }>;
  jobs: number;
  /** What was lost, as sentences. */
  lost: string[];
  /** From the containers' start until every kind of call works again; null where none failed, -1 where it stayed so. */
  back_ms: number | null;
}

/** Ends a service's containers for a while under load, starts them again and looks what became of everything. */
export async function outage({ url, service, kill, awayMs, users, signal }: OutageOptions): Promise<Outage> {
  const containers = await containersOf(service);
  if (containers.length === 0) throw new Error(`no container of ${service} runs`);
  await users.refresh();
  const name = `${service} ${new Date().toISOString()}`;
  const load = startLoad(url, users.users, name);
  let away: Absence;
  try {
    await sleep(BEFORE_MS, signal);
    away = await takeAway(containers, kill, awayMs, signal);
    const deadline = Date.now() + BACK_MS;
    while (backAt(load.calls, away.startedAt) === -1 && Date.now() < deadline) await sleep(LOOK_MS, signal);
    await sleep(AFTER_MS, signal);
  } finally {
    await load.stop();
  }
  const lost: string[] = [];
  for (const user of users.users) {
    const found = losses(user, name, load.accepted.get(user.organization)!, users.items);
    lost.push(...(await found.catch((error: Error) => [`${user.organization}: cannot be read: ${error.message}`])));
  }
  const whose = users.servers.get(service);
  return {
    stopped: `${service}${whose ? ` (${whose.join(', ') || 'nobody'}’s)` : ''}${kill ? ', killed' : ''}`,
    stop_ms: away.stopMs,
    exit_codes: away.exitCodes,
    calls: tally(load.calls),
    jobs: [...load.accepted.values()].flat().length,
    lost,
    back_ms: backAt(load.calls, away.startedAt),
  };
}

interface Absence {
  stopMs: number;
  exitCodes: number[];
  startedAt: number;
}

/** Ends containers and starts them again, whatever happens in between. */
async function takeAway(
  containers: readonly string[],
  kill: boolean,
  awayMs: number,
  signal: AbortSignal,
): Promise<Absence> {
  const absence: Absence = { stopMs: 0, exitCodes: [], startedAt: 0 };
  try {
    const began = Date.now();
    await end(containers, kill);
    absence.stopMs = Date.now() - began;
    absence.exitCodes = await exitCodes(containers);
    await sleep(awayMs, signal);
  } finally {
    absence.startedAt = Date.now();
    await start(containers);
  }
  return absence;
}

/** The first good answer to each kind of call that failed, after its last failure; the latest of them. */
function backAt(calls: readonly Call[], startedAt: number): number | null {
  let back: number | null = null;
  for (const kind of new Set(calls.map((call) => call.kind))) {
    const ofKind = calls.filter((call) => call.kind === kind);
    const last = ofKind.findLastIndex(({ problem }) => problem !== undefined);
    if (last === -1) continue;
    const good = ofKind.slice(last + 1).find(({ ended }) => ended >= startedAt);
    if (good === undefined) return -1;
    back = Math.max(back ?? 0, good.ended - startedAt);
  }
  return back;
}

function tally(calls: readonly Call[]): Outage['calls'] {
  const kinds: Outage['calls'] = {};
  for (const { kind, problem } of calls) {
    const one = (kinds[kind] ??= { made: 0, failed: {} });
    one.made += 1;
    if (problem !== undefined) one.failed[problem] = (one.failed[problem] ?? 0) + 1;
  }
  return kinds;
}
