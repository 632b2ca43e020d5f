import { setTimeout as delay } from 'node:timers/promises';
import { SECOND_MS } from '@mad/process';
import type { Tenants } from '@mad/tenancy';
import { interleave, summarize } from '../measure.ts';
import { scaled, type Row } from '../row.ts';
import { NO_JOB, openBenchFleet, READ_SQL } from '../tenant-fleet.ts';

const NOISY = 6;
const CLIENTS = 100;
/** Between two reads of the quiet tenant. */
const PAUSE_MS = 5;

/** One organization's reads beside six that ask with a hundred clients each, over the same process and budget. */
export const noisyNeighbour: Row = {
  name: 'noisy-neighbour',
  async run(bench) {
    const fleet = await openBenchFleet(bench, NOISY + 1);
    try {
      const tenants = await fleet.open();
      const [quiet, ...noisy] = fleet.routes.map(({ orgId }) => orgId) as [string, ...string[]];
      const durationMs = scaled(bench, 5 * SECOND_MS, SECOND_MS);
      let errors = 0;
      const noise: number[] = [];
      const p99 = async (): Promise<number> => {
        const times: number[] = [];
        const end = performance.now() + durationMs;
        while (performance.now() < end) {
          const start = performance.now();
          await read(tenants, quiet).catch(() => (errors += 1));
          times.push(performance.now() - start);
          await delay(PAUSE_MS);
        }
        return times.toSorted((a, b) => a - b)[Math.floor(times.length * 0.99)]!;
      };
      const samples = await interleave(
        scaled(bench, 5, 1),
        {
          async ours() {
            const made = makeNoise(tenants, noisy);
            await delay(SECOND_MS / 2);
            const sample = await p99();
            noise.push(await made.stop());
            return sample;
          },
          floor: p99,
        },
        (round) => bench.progress(`round ${round}`),
      );
      if (errors > 0) throw new Error(`${errors} reads of the quiet tenant failed`);
      const notes = { noisy: NOISY, clients_each: CLIENTS, noisy_reads_per_second: summarize(noise).median };
      return [{ name: 'noisy-neighbour', unit: 'ms p99', target: { of: 'ratio', atMost: 2 }, ...samples, notes }];
    } finally {
      await fleet.close();
    }
  },
};

function read(tenants: Tenants, orgId: string): Promise<unknown> {
  return tenants.read(orgId, (tx) => tx.query(READ_SQL, [NO_JOB]));
}

/** Every client asks again as soon as it is answered, or refused. `stop` answers how many reads a second there were. */
function makeNoise(tenants: Tenants, orgs: readonly string[]): { stop(): Promise<number> } {
  let stopped = false;
  let reads = 0;
  const began = performance.now();
  const client = async (orgId: string): Promise<void> => {
    while (!stopped) {
      const done = await read(tenants, orgId).then(
        () => true,
        () => false,
      );
      if (done) reads += 1;
      else await delay(10);
    }
  };
  const clients = orgs.flatMap((orgId) => Array.from({ length: CLIENTS }, () => client(orgId)));
  return {
    async stop() {
      stopped = true;
      await Promise.all(clients);
      return Math.round((reads * SECOND_MS) / (performance.now() - began));
    },
  };
}
