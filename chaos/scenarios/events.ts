import { MINUTE_MS, sleep } from '@mad/process';
import { JobRunService } from '@mad/proto/results';
import type { Chaos, Scenario } from '../scenario.ts';
import { Screening } from '../science.ts';

const VICTIMS = ['results', 'results', 'worker', 'gateway', 'redis', 'postgres'] as const;
const SUBSCRIBERS = 4;
const KILLS_PER_JOB = 8;
const KILL_WITHIN_MS = 500;
const AGAIN_MS = 50;
const WATCH_MS = MINUTE_MS;

/** Those who watch a job hear every event once, in order, whoever dies between them and it. */
export const events: Scenario = {
  name: 'events',
  weight: 5,
  async run(chaos, kills) {
    const { system } = chaos;
    const screening = await Screening.of(system);
    const died: Record<string, number> = {};
    const problems: string[] = [];
    let [done, lost, givenUp, doubled, gaps, jobs, cuts] = [0, 0, 0, 0, 0, 0, 0];
    while (done < kills) {
      system.fleet.freeze('worker');
      const jobId = await screening.begin();
      const subscribers = Array.from({ length: SUBSCRIBERS }, () => new Subscriber(screening, jobId));
      system.fleet.thaw('worker');
      for (let kill = 0; kill < KILLS_PER_JOB && done < kills; kill += 1) {
        await sleep(chaos.random() * KILL_WITHIN_MS);
        const victim = VICTIMS[Math.floor(chaos.random() * VICTIMS.length)]!;
        if (!(await strike(chaos, screening, victim))) continue;
        died[victim] = (died[victim] ?? 0) + 1;
        done += 1;
      }
      const seen = await screening.judged(jobId);
      problems.push(...seen.problems);
      lost += seen.lost;
      givenUp += seen.givenUp;
      doubled += seen.doubled;
      gaps += seen.gaps;
      const [last] = await system.inside<{ n: number }>(
        screening.org.orgId,
        'SELECT max(seq_no)::int AS n FROM results.job_events WHERE job_id = $1',
        jobId,
      );
      for (const subscriber of subscribers) {
        const heard = await subscriber.heard();
        cuts += subscriber.cuts;
        const distinct = new Set(heard).size;
        doubled += heard.length - distinct;
        gaps += last!.n - distinct;
        if (heard.some((seqNo, index) => index > 0 && seqNo < heard[index - 1]!))
          problems.push(`${jobId}: out of order`);
      }
      jobs += 1;
      chaos.progress(`${done} of ${kills} in ${jobs} jobs, ${cuts} streams cut`);
    }
    return { kills: done, lost, doubled, gaps, problems, notes: { died, jobs, streams_cut: cuts, given_up: givenUp } };
  },
};

async function strike({ system }: Chaos, screening: Screening, victim: (typeof VICTIMS)[number]): Promise<boolean> {
  if (victim === 'redis') {
    if (system.redis === undefined) return false;
    await system.redis.stop();
    await system.redis.start();
  } else if (victim === 'postgres') await system.crashServer(await system.serverOf(screening.org.orgId));
  else await system.restart(victim);
  return true;
}

/** Watches a job from its first event, and goes on from the last one it heard whenever its stream is cut. */
class Subscriber {
  cuts = 0;
  readonly #seen: number[] = [];
  readonly #done: Promise<void>;

  constructor(screening: Screening, jobId: string) {
    this.#done = this.#watch(screening, jobId);
  }

  /** The numbers it was told, in the order it was told them, once the job has ended. */
  async heard(): Promise<number[]> {
    await this.#done;
    return this.#seen;
  }

  async #watch(screening: Screening, jobId: string): Promise<void> {
    const { orgId } = screening.org;
    for (;;) {
      try {
        const client = (await screening.person()).client(JobRunService);
        const afterSeq = BigInt(this.#seen.at(-1) ?? 0);
        const stream = client.watchJob({ orgId, jobId, afterSeq }, { timeoutMs: WATCH_MS });
        for await (const { events: told } of stream) this.#seen.push(...told.map(({ seqNo }) => Number(seqNo)));
        // It ends by itself after the last event alone.
        return;
      } catch {
        this.cuts += 1;
        await sleep(AGAIN_MS);
      }
    }
  }
}
