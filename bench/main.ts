import { parseArgs } from 'node:util';
import { hostFacts } from './host.ts';
import { readLibrary, type Library } from './library.ts';
import { judge, keepResult, table, type JudgedLine } from './report.ts';
import type { Bench, Row } from './row.ts';
import { archive } from './rows/archive.ts';
import { fairClaim } from './rows/fair-claim.ts';
import { fleetSoak } from './rows/fleet-soak.ts';
import { noisyNeighbour } from './rows/noisy-neighbour.ts';
import { ingest } from './rows/ingest.ts';
import { noopPass } from './rows/noop-pass.ts';
import { ormRead } from './rows/orm-read.ts';
import { provisionCold } from './rows/provision-cold.ts';
import { provisionWarm } from './rows/provision-warm.ts';
import { registration } from './rows/registration.ts';
import { rollout } from './rows/rollout.ts';
import { rotationLoad } from './rows/rotation-load.ts';
import { routeLookup } from './rows/route-lookup.ts';
import { rpcBare } from './rows/rpc-bare.ts';
import { rpcFull } from './rows/rpc-full.ts';
import { similarityOverhead } from './rows/similarity-overhead.ts';
import { tenantRead } from './rows/tenant-read.ts';
import { tenMillion } from './rows/ten-million.ts';
import { topHits } from './rows/top-hits.ts';
import { verifiedToken } from './rows/verified-token.ts';
import { zipfTenants } from './rows/zipf-tenants.ts';
import { startSystem, type BenchSystem } from './system.ts';

/** In the order they run: what needs no server first, so that a server's background work disturbs nobody else. */
const ROWS: readonly Row[] = [
  routeLookup,
  verifiedToken,
  rpcBare,
  rpcFull,
  similarityOverhead,
  tenantRead,
  ormRead,
  noisyNeighbour,
  zipfTenants,
  ingest,
  topHits,
  fairClaim,
  registration,
  archive,
  provisionCold,
  provisionWarm,
  noopPass,
  rollout,
  rotationLoad,
  tenMillion,
  fleetSoak,
];

/** Of a soak. */
const MINUTES = 30;

const USAGE = `node bench/main.ts [--json] [--quick] [--library <file>] [--minutes <n>] [name …]

  --json      the lines as JSON instead of a table
  --quick     a look at whether every row runs: few samples, worth nothing as a measurement
  --library   a .smi or .csv(.gz) of molecules for registration and similarity-overhead; also BENCH_LIBRARY
  --minutes   how long fleet-soak lasts; default ${MINUTES}
  name        ${ROWS.map(({ name }) => name).join(', ')}; default all but the soaks: ${ROWS.filter(({ soak }) => soak)
    .map(({ name }) => name)
    .join(', ')}
`;

/** At this scale every row takes a second or two. */
const QUICK = 0.05;

interface Options {
  json: boolean;
  rows: readonly Row[];
  scale: number;
  minutes: number;
  libraryPath: string | undefined;
}

function readOptions(): Options | undefined {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      json: { type: 'boolean', default: false },
      quick: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
      library: { type: 'string' },
      minutes: { type: 'string', default: String(MINUTES) },
    },
  });
  const unknown = positionals.filter((name) => !ROWS.some((row) => row.name === name));
  if (unknown.length > 0) throw new Error(`no row is named ${unknown.join(', ')}`);
  if (values.help) return undefined;
  const minutes = Number(values.minutes);
  if (!(minutes > 0 && minutes <= 1440))
    throw new Error(`--minutes must be above 0 and at most 1440, not ${values.minutes}`);
  return {
    json: values.json,
    minutes,
    rows:
      positionals.length === 0
        ? ROWS.filter(({ soak }) => soak !== true)
        : ROWS.filter(({ name }) => positionals.includes(name)),
    scale: values.quick ? QUICK : 1,
    libraryPath: values.library ?? process.env['BENCH_LIBRARY'],
  };
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** Runs the rows one after another; returns the lines and the rows that crashed. */
async function runRows(options: Options): Promise<{ lines: JudgedLine[]; crashed: string[] }> {
  let starting: Promise<BenchSystem> | undefined;
  let library: Promise<Library> | undefined;
  let running = '';
  const bench: Bench = {
    scale: options.scale,
    minutes: options.minutes,
    system: () => (starting ??= startSystem()),
    library: () => (library ??= readLibrary(options.libraryPath)),
    progress: (text) => say(`${running}: ${text}`),
  };
  const onInterrupt = (): void => {
    // The programs end by themselves when this process is gone, and remove what they made.
    process.exit(130);
  };
  process.once('SIGINT', onInterrupt).once('SIGTERM', onInterrupt);
  const lines: JudgedLine[] = [];
  const crashed: string[] = [];
  try {
    for (const row of options.rows) {
      running = row.name;
      const began = performance.now();
      try {
        const judged = (await row.run(bench)).map(judge);
        const version =
          starting &&
          (await starting.then(
            (system) => system.version,
            () => undefined,
          ));
        await keepResult(row.name, hostFacts(version), judged);
        lines.push(...judged);
        bench.progress(`${((performance.now() - began) / 1000).toFixed(1)} s`);
      } catch (error) {
        crashed.push(row.name);
        say(`${row.name} crashed: ${error instanceof Error ? error.stack : String(error)}`);
      }
    }
  } finally {
    await starting?.then(
      (system) => system.close(),
      () => undefined,
    );
  }
  return { lines, crashed };
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
  const { lines, crashed } = await runRows(options);
  if (options.json) process.stdout.write(`${JSON.stringify(lines, null, 2)}\n`);
  else if (lines.length > 0) process.stdout.write(`${table(lines)}\n`);
  const { cpu, cores, node, load } = hostFacts(undefined);
  say(`${cores} × ${cpu}, Node ${node}, load ${load.join(' ')}; every sample is in bench/results/`);
  return crashed.length > 0 ? 1 : 0;
}

process.exitCode = await main();
