import { interleave, millisecondsOf } from '../measure.ts';
import { scaled, type Row } from '../row.ts';
import { AT_ONCE, byHand, inEach, newest, rollOut, rollouts, took } from '../rollout-fleet.ts';
import { openBenchFleet } from '../tenant-fleet.ts';

const TENANTS = 100;

/** One migration through the fleet, each database looked at before and after, in waves that are judged. */
export const rollout: Row = {
  name: 'rollout',
  async run(bench) {
    const size = Number(process.env['BENCH_TENANTS'] ?? scaled(bench, TENANTS, 10));
    const fleet = await openBenchFleet(bench, size);
    try {
      const client = await rollouts(fleet);
      const { routes } = fleet;
      const back = () => inEach(fleet, routes, AT_ONCE, (inside) => byHand(inside, 'down'));
      const rate = (ms: number): number => size / (ms / 1_000);
      const samples = await interleave(
        scaled(bench, 3, 1),
        {
          async ours() {
            await back();
            return rate(took(await rollOut(client)));
          },
          // One after the other, as a loop in a shell would; nothing is checked, and what fails ends it.
          async floor() {
            await back();
            return rate(await millisecondsOf(() => inEach(fleet, routes, 1, (inside) => byHand(inside, 'up'))));
          },
        },
        (round) => bench.progress(`round ${round}`),
      );
      const notes = { tenants: size, at_once: AT_ONCE, migration: newest.migrationName };
      return [{ name: 'rollout', unit: 'tenants/s', target: { of: 'ratio', atLeast: 0.25 }, ...samples, notes }];
    } finally {
      await fleet.close();
    }
  },
};
