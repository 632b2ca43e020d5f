import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createLeaseSigner } from '@mad/auth';
import { HOUR_MS, MINUTE_MS, sleep } from '@mad/process';
import { BATCHES, ITEMS, POSES_PER_ITEM, scoreOf } from '../batches.ts';
import type { AppenderOptions } from '../programs/appender.ts';
import { runningJob } from '../running-job.ts';
import type { Chaos, Scenario } from '../scenario.ts';

const VICTIMS = ['results', 'worker', 'postgres'] as const;
const KILL_WITHIN_MS = 600;
const END_MS = 3 * MINUTE_MS;
/** In one job at most: the next one begins with everything alive. */
const KILLS_PER_JOB = 6;

/** Streams of result batches, cut by the death of who sends, who receives, and who keeps. */
export const ingest: Scenario = {
  name: 'ingest',
  weight: 7,
  async run(chaos, kills) {
    const { system } = chaos;
    const { orgId } = await system.newOrganization();
    const died: Record<string, number> = {};
    const problems: string[] = [];
    let [done, lost, doubled, jobs, idle] = [0, 0, 0, 0, 0];
    while (done < kills && idle < 5) {
      const { jobId, taskExecutionId } = await runningJob(system, orgId);
      jobs += 1;
      const before = done;
      const worker = new Worker(await optionsOf(chaos, orgId, taskExecutionId));
      for (let kill = 0; kill < KILLS_PER_JOB && done < kills; kill += 1) {
        await Promise.race([sleep(chaos.random() * KILL_WITHIN_MS), worker.ended]);
        if (worker.hasEnded) break;
        const victim = VICTIMS[Math.floor(chaos.random() * VICTIMS.length)]!;
        if (victim === 'worker') await worker.restart();
        else if (victim === 'results') await system.restart('results');
        else await system.crashServer(await system.serverOf(orgId));
        died[victim] = (died[victim] ?? 0) + 1;
        done += 1;
      }
      const inTime = await Promise.race([worker.ended.then(() => true), sleep(END_MS).then(() => false)]);
      if (!inTime) problems.push(`job ${jobId}: not every batch was taken within ${END_MS} ms`);
      await worker.kill();
      const seen = await count(chaos, orgId, jobId, taskExecutionId);
      lost += seen.lost;
      doubled += seen.doubled;
      idle = done === before ? idle + 1 : 0;
      chaos.progress(`${done} of ${kills} in ${jobs} executions`);
    }
    const notes = { died, executions: jobs, batches: jobs * BATCHES, poses: jobs * ITEMS * POSES_PER_ITEM };
    return { kills: done, lost, doubled, gaps: 0, problems, notes };
  },
};

async function optionsOf({ system }: Chaos, orgId: string, taskExecutionId: string): Promise<AppenderOptions> {
  const { secrets, ports } = system.fleet.ground;
  const signLease = createLeaseSigner(secrets.signingKeys.catalog.privateJwk);
  const lease = { orgId, taskExecutionId, attempt: 1, worker: 'chaos' };
  return {
    port: ports.results.port,
    privateJwk: secrets.signingKeys.worker.privateJwk,
    orgId,
    taskExecutionId,
    leaseToken: await signLease(lease, new Date(Date.now() + HOUR_MS)),
  };
}

/** The appender, in a process that is killed and begun again until one has sent everything. */
class Worker {
  #child: ChildProcess;
  hasEnded = false;
  readonly ended: Promise<void>;
  readonly #end = Promise.withResolvers<void>();
  readonly #options: AppenderOptions;

  constructor(options: AppenderOptions) {
    this.#options = options;
    this.ended = this.#end.promise;
    this.#child = this.#start();
  }

  #start(): ChildProcess {
    const child = fork(new URL('../programs/appender.ts', import.meta.url), [JSON.stringify(this.#options)]);
    child.once('exit', (code) => {
      if (code !== 0) return;
      this.hasEnded = true;
      this.#end.resolve();
    });
    return child;
  }

  async restart(): Promise<void> {
    await this.kill();
    if (!this.hasEnded) this.#child = this.#start();
  }

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill('SIGKILL');
    await once(this.#child, 'exit');
  }
}

/** Every item staged once and every pose there once, with its own score. */
async function count({ system }: Chaos, orgId: string, jobId: string, taskExecutionId: string) {
  const poses = await system.inside<{ item: number; rank: number; score: number; times: number }>(
    orgId,
    `SELECT item_no AS item, pose_rank AS rank, min(score) AS score, count(*)::int AS times
     FROM results.docking_results WHERE job_id = $1 GROUP BY 1, 2`,
    jobId,
  );
  const items = await system.inside<{ item: number; score: number }>(
    orgId,
    'SELECT item_no AS item, score FROM results.staged_results WHERE task_execution_id = $1',
    taskExecutionId,
  );
  const right = poses.filter(({ item, rank, score }) => score === scoreOf(item, rank)).length;
  const staged = new Set(items.filter(({ item, score }) => score === scoreOf(item, 1)).map(({ item }) => item)).size;
  return {
    lost: ITEMS * POSES_PER_ITEM - right + (ITEMS - staged),
    doubled: poses.filter(({ times }) => times > 1).length + (items.length - staged),
  };
}
