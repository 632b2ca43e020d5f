import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { hostFacts } from '../bench/host.ts';
import { seededRandom } from './random.ts';
import { judge, keepResult, table, type JudgedOutcome } from './report.ts';
import { SUITES, type Outcome, type Scenario, type SuiteName } from './scenario.ts';
import { backup } from './scenarios/backup.ts';
import { erase } from './scenarios/erase.ts';
import { events } from './scenarios/events.ts';
import { exports } from './scenarios/exports.ts';
import { finish } from './scenarios/finish.ts';
import { ingest } from './scenarios/ingest.ts';
import { jobs } from './scenarios/jobs.ts';
import { moveOffline, moveOnline } from './scenarios/move.ts';
import { provision } from './scenarios/provision.ts';
import { restore } from './scenarios/restore.ts';
import { rollout } from './scenarios/rollout.ts';
import { rotate } from './scenarios/rotate.ts';
import { startChaosSystem, type ChaosSystem } from './system.ts';

const SCENARIOS: Record<SuiteName, readonly Scenario[]> = {
  provisioner: [provision, rotate, rollout, backup, restore, moveOffline, moveOnline, erase],
  results: [ingest, finish, exports, events, jobs],
};
/** Of a suite: by then every step of every operation has seen each of the three die. */
const KILLS: Record<SuiteName, number> = { provisioner: 120, results: 200 };

const USAGE = `node chaos/main.ts [--json] [--kills <n>] [--seed <n>] [name …]

  --json    the outcomes as JSON instead of tables
  --kills   so many in each suite, shared among its scenarios; default ${KILLS.provisioner} and ${KILLS.results}
  --seed    the moments and the victims of an earlier run: it said its seed
  name      ${SUITES.join(', ')}, or scenarios of them: ${Object.values(SCENARIOS)
    .flat()
    .map(({ name }) => name)
    .join(', ')}; default all
`;

interface Options {
  json: boolean;
  seed: number;
  kills: number | undefined;
  suites: Map<SuiteName, readonly Scenario[]>;
}

function wholeNumber(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new Error(`--${name} must be a whole number from 1 on, not ${text}`);
  return Number(text);
}

function readOptions(): Options | undefined {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
      kills: { type: 'string' },
      seed: { type: 'string' },
    },
  });
  if (values.help) return undefined;
  const known = new Set<string>([...SUITES, ...SUITES.flatMap((suite) => SCENARIOS[suite].map(({ name }) => name))]);
  const unknown = positionals.filter((name) => !known.has(name));
  if (unknown.length > 0) throw new Error(`no scenario is named ${unknown.join(', ')}`);
  const suites = new Map<SuiteName, readonly Scenario[]>();
  for (const suite of SUITES) {
    const all = positionals.length === 0 || positionals.includes(suite);
    const chosen = SCENARIOS[suite].filter(({ name }) => all || positionals.includes(name));
    if (chosen.length > 0) suites.set(suite, chosen);
  }
  const seed = wholeNumber('seed', values.seed) ?? randomInt(1, 1_000_000);
  return { json: values.json, seed, kills: wholeNumber('kills', values.kills), suites };
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

async function runScenario(
  suite: SuiteName,
  scenario: Scenario,
  system: ChaosSystem,
  { seed, kills }: { seed: number; kills: number },
): Promise<JudgedOutcome> {
  const began = performance.now();
  const progress = (text: string): void => say(`${scenario.name}: ${text}`);
  let outcome: Outcome;
  try {
    // Each scenario begins with the seed, so that one alone repeats what it did among others.
    outcome = await scenario.run({ system, random: seededRandom(seed), progress }, kills);
  } catch (error) {
    const why = error instanceof Error ? (error.stack ?? error.message) : String(error);
    outcome = { kills: 0, lost: 0, doubled: 0, problems: [`it could not go on: ${why}`], notes: {} };
  }
  outcome.problems.push(...system.fleet.fallen());
  const judged = judge(suite, scenario.name, (performance.now() - began) / 1000, outcome);
  for (const problem of judged.problems) progress(problem);
  return judged;
}

async function main(): Promise<number> {
  let options;
  try {
    options = readOptions();
  } catch (error) {
    say(`${(error as Error).message}\n\n${USAGE}`);
    return 2;
  }
  if (options === undefined) {
    process.stdout.write(USAGE);
    return 0;
  }
  const { seed, suites, json } = options;
  say(`seed ${seed}`);
  const outcomes: JudgedOutcome[] = [];
  for (const [suite, scenarios] of suites) {
    const system = await startChaosSystem(say);
    const end = (): void => void system.close().finally(() => process.exit(130));
    process.once('SIGINT', end).once('SIGTERM', end);
    const total = scenarios.reduce((sum, { weight }) => sum + weight, 0);
    const ofSuite: JudgedOutcome[] = [];
    try {
      for (const scenario of scenarios) {
        const kills = Math.max(1, Math.round(((options.kills ?? KILLS[suite]) * scenario.weight) / total));
        ofSuite.push(await runScenario(suite, scenario, system, { seed, kills }));
      }
    } finally {
      process.off('SIGINT', end).off('SIGTERM', end);
      await system.close();
    }
    outcomes.push(...ofSuite);
    await keepResult(suite, { seed, host: hostFacts(undefined), outcomes: ofSuite });
    if (!json) process.stdout.write(`${table(suite, ofSuite)}\n`);
  }
  if (json) process.stdout.write(`${JSON.stringify({ seed, outcomes }, null, 2)}\n`);
  say(`seed ${seed}; every number is in chaos/results/`);
  return outcomes.every(({ ok }) => ok) ? 0 : 1;
}

process.exitCode = await main();
