import { interleave, millisecondsOf } from '../measure.ts';
import { scaled, type Row } from '../row.ts';
import { AT_ONCE, inEach, rollOut, rollouts, took } from '../rollout-fleet.ts';
import { SCHEMA } from '../system.ts';
import { openBenchFleet } from '../tenant-fleet.ts';

const TENANTS = 500;

/** A rollout that finds everybody at its version: what it costs to be sure, for each tenant. */
export const noopPass: Row = {
  name: 'noop-pass',
  async run(bench) {
    const size = Number(process.env['BENCH_TENANTS'] ?? scaled(bench, TENANTS, 20));
    const fleet = await openBenchFleet(bench, size);
    try {
      const client = await rollouts(fleet);
      const question = `SELECT name FROM ${SCHEMA}.migrations ORDER BY "timestamp"`;
      const samples = await interleave(
        scaled(bench, 3, 1),
        {
          ours: async () => took(await rollOut(client)) / size,
          floor: async () => {
            const look = () => inEach(fleet, fleet.routes, AT_ONCE, (inside) => inside.query(question));
            return (await millisecondsOf(look)) / size;
          },
        },
        (round) => bench.progress(`round ${round}`),
      );
      const notes = { tenants: size, at_once: AT_ONCE };
      return [{ name: 'noop-pass', unit: 'ms each', target: { of: 'ratio', atMost: 2 }, ...samples, notes }];
    } finally {
      await fleet.close();
    }
  },
};
