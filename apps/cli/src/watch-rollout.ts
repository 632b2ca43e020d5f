import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { RolloutRunState, RolloutService, RolloutState, type Rollout, type RolloutRun } from '@mad/proto/provisioner';
import type { Api } from './api.ts';
import { CommandFailure, EXIT } from './failure.ts';
import type { Output } from './output.ts';
import { allPages } from './pages.ts';
import { progressBar } from './progress.ts';

/** Of what a verification prints, the end: that is where the reason stands. */
const REPORT_BYTES = 500;

/**
 * Shows a rollout's progress until it ends or waits for somebody. Where it waits for a verification and there is a
 * command for it, runs that here, reports how it ended, and goes on.
 */
export async function watchRollout(
  api: Api,
  output: Output,
  rolloutId: string,
  verify: string | undefined,
): Promise<Rollout> {
  const client = api.client(RolloutService);
  for (;;) {
    let last: Rollout | undefined;
    let bar: ReturnType<typeof progressBar> | undefined;
    try {
      for await (const { rollout } of client.watchRollout({ rolloutId })) {
        last = rollout!;
        const { total, succeeded, failed, queued, rolledBack, skipped } = last.counts!;
        bar ??= progressBar(output, last.schema, total);
        const settled = succeeded + failed + queued + rolledBack + skipped;
        const { rowsChanged, rowsToChange } = last;
        const rows = rowsToChange > 0n ? `, ${rowsChanged} of ${rowsToChange} rows` : '';
        bar.update(last.rollingBack ? rolledBack : settled, `wave ${last.wave}, ${failed} failed${rows}`);
      }
    } finally {
      bar?.stop();
    }
    if (last === undefined || (last.state === RolloutState.RUNNING && last.endTime === undefined)) {
      throw new CommandFailure('the stream ended before the rollout did: watch it again', EXIT.unavailable);
    }
    if (last.state !== RolloutState.WAITING || verify === undefined) return last;
    output.note(`verifying: ${verify}`);
    const { passed, report } = await run(verify, rolloutId);
    await client.reportVerification({ rolloutId, passed, report });
  }
}

/** Runs the operator's command in the operator's shell; what it prints is shown, and its end reported. */
async function run(command: string, rolloutId: string): Promise<{ passed: boolean; report: string }> {
  const env = { ...process.env, MAD_ROLLOUT: rolloutId };
  const child = spawn(command, { shell: true, env, stdio: ['inherit', 'pipe', 'pipe'] });
  let tail = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      process.stderr.write(chunk);
      tail = (tail + chunk.toString('utf8')).slice(-REPORT_BYTES);
    });
  }
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  const end = code === null ? `ended by ${signal}` : `exit code ${code}`;
  return { passed: code === 0, report: `${end}: ${tail.trim()}` };
}

/** The rollout's tenants that are not where they should be. */
export function runsLeft(api: Api, rolloutId: string): Promise<RolloutRun[]> {
  const list = (state: RolloutRunState): Promise<RolloutRun[]> =>
    allPages(
      (pageToken) => api.client(RolloutService).listRolloutRuns({ rolloutId, state, pageToken, pageSize: 200 }),
      (page) => page.runs,
    );
  return Promise.all([RolloutRunState.FAILED, RolloutRunState.QUEUED].map(list)).then((lists) => lists.flat());
}
