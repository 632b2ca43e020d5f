import { sleep } from '@mad/process';
import { SERVER_NAME } from '../../apps/local/src/environment.ts';
import type { Scenario } from '../scenario.ts';
import { Screening } from '../science.ts';

/** The worker dies most: its items are what could be lost, or computed into the same place twice. */
const VICTIMS = ['worker', 'worker', 'worker', 'results', 'catalog', 'postgres'] as const;
const AT_ONCE = 3;
const KILLS_PER_ROUND = 8;
const KILL_WITHIN_MS = 800;

/** Whole jobs, several at once, from submission to end, with everybody dying who has a part in them. */
export const jobs: Scenario = {
  name: 'jobs',
  weight: 5,
  async run(chaos, kills) {
    const { system } = chaos;
    const screening = await Screening.of(system);
    const died: Record<string, number> = {};
    const problems: string[] = [];
    let [done, lost, givenUp, doubled, gaps, count] = [0, 0, 0, 0, 0, 0];
    while (done < kills) {
      // While they are submitted nobody computes: the deaths meet them running.
      system.fleet.freeze('worker');
      const running: string[] = [];
      for (let n = 0; n < AT_ONCE; n += 1) running.push(await screening.begin());
      system.fleet.thaw('worker');
      for (let kill = 0; kill < KILLS_PER_ROUND && done < kills; kill += 1) {
        await sleep(chaos.random() * KILL_WITHIN_MS);
        const victim = VICTIMS[Math.floor(chaos.random() * VICTIMS.length)]!;
        // The metadata's server, which is the tenant's at times.
        if (victim === 'postgres') await system.crashServer(SERVER_NAME);
        else await system.restart(victim);
        died[victim] = (died[victim] ?? 0) + 1;
        done += 1;
      }
      for (const jobId of running) {
        const seen = await screening.judged(jobId);
        lost += seen.lost;
        givenUp += seen.givenUp;
        doubled += seen.doubled;
        gaps += seen.gaps;
        problems.push(...seen.problems);
        count += 1;
      }
      chaos.progress(`${done} of ${kills} in ${count} jobs`);
    }
    return { kills: done, lost, doubled, gaps, problems, notes: { died, jobs: count, given_up: givenUp } };
  },
};
