import type { Command } from 'commander';
import type { Env } from '@mad/process';
import { action } from '../command.ts';
import { EXIT } from '../failure.ts';
import { runDemo } from '../demo/demo.ts';
import { reportText } from '../demo/report.ts';

/** demo: the main job, end to end. */
export function demoCommand(mad: Command, env: Env): void {
  mad
    .command('demo')
    .description(
      'two organizations, two databases, real molecules, ranked results, the same job from cache, and no way across',
    )
    .option('--docking <when>', 'auto, on or off; auto docks where AutoDock Vina is installed', 'auto')
    .action(
      action<{ docking: string }>(env, async ({ settings, output, options }) => {
        const report = await runDemo(settings, output, options.docking);
        output.answer(report, reportText(report));
        if (!report.ok) process.exitCode = EXIT.failed;
      }),
    );
}
