import { mkdir, writeFile } from 'node:fs/promises';
import type { HostFacts } from '../bench/host.ts';
import { textTable } from '../bench/text-table.ts';
import type { Outcome, SuiteName } from './scenario.ts';

/** A scenario's outcome with its verdict. */
export interface JudgedOutcome extends Outcome {
  suite: SuiteName;
  scenario: string;
  seconds: number;
  ok: boolean;
}

/** All must be zero, somebody must have died, and nothing else may be wrong. */
export function judge(suite: SuiteName, scenario: string, seconds: number, outcome: Outcome): JudgedOutcome {
  const { kills, orphans = 0, lost, doubled, gaps = 0, problems } = outcome;
  const ok = kills > 0 && orphans + lost + doubled + gaps === 0 && problems.length === 0;
  return { suite, scenario, seconds, ...outcome, ok };
}

const COLUMNS: Record<SuiteName, readonly ('orphans' | 'lost' | 'doubled' | 'gaps')[]> = {
  provisioner: ['orphans', 'lost', 'doubled'],
  results: ['lost', 'doubled', 'gaps'],
};

/** The outcomes of one suite as a table for people, with their sum of kills. */
export function table(suite: SuiteName, outcomes: readonly JudgedOutcome[]): string {
  const columns = COLUMNS[suite];
  const total = outcomes.reduce((sum, { kills }) => sum + kills, 0);
  const seconds = outcomes.reduce((sum, one) => sum + one.seconds, 0);
  return textTable([
    ['scenario', 'kills', ...columns, 'ok', 'seconds'],
    ...outcomes.map((one) => [
      one.scenario,
      String(one.kills),
      ...columns.map((column) => String(one[column] ?? 0)),
      one.ok ? 'yes' : 'no',
      one.seconds.toFixed(0),
    ]),
    [suite, String(total), ...columns.map(() => ''), outcomes.every(({ ok }) => ok) ? 'yes' : 'no', seconds.toFixed(0)],
  ]);
}

/** Keeps a suite's outcomes in `results/<suite>.json`. */
export async function keepResult(
  suite: SuiteName,
  run: { seed: number; host: HostFacts; outcomes: readonly JudgedOutcome[] },
): Promise<void> {
  const folder = new URL('results/', import.meta.url);
  await mkdir(folder, { recursive: true });
  await writeFile(new URL(`${suite}.json`, folder), `${JSON.stringify({ suite, ...run }, null, 2)}\n`);
}
