import { Option, type Command } from 'commander';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { once } from 'node:events';
import type { Env } from '@mad/process';
import { action } from '../command.ts';
import { CommandFailure, EXIT } from '../failure.ts';
import {
  readLocalAdministrator,
  readLocalState,
  runLocal,
  startLocalSystem,
  stopLocalSystem,
} from '../local-system.ts';
import { duration } from '../output.ts';

/** up, down, reset, status: the system on this machine. */
export function localCommands(mad: Command, env: Env): void {
  mad
    .command('up')
    .description('start the whole system on this machine')
    .option('--port <port>', "the gateway's port", Number)
    .addOption(
      new Option('--archive-wal <whether>', 'keep the database log for point-in-time recovery, or delete it').choices([
        'on',
        'off',
      ]),
    )
    .action(
      action<{ port?: number; archiveWal?: string }>(env, async ({ settings, output, options }) => {
        const began = Date.now();
        const first = (await readLocalAdministrator(settings.home)) === undefined;
        const { state, started } = await startLocalSystem(settings.home, {
          ...(options.port === undefined ? {} : { port: options.port }),
          ...(options.archiveWal === undefined ? {} : { archiveWal: options.archiveWal }),
          onPhase: (phase) => output.note(`… ${phase}`),
        });
        if (!started && options.archiveWal !== undefined) {
          throw new CommandFailure(
            '--archive-wal is for a start: the system runs already; run: mad down',
            EXIT.refused,
          );
        }
        const administrator = await readLocalAdministrator(settings.home);
        const lines = [`${started ? 'started' : 'already running'} at ${state.url} (${duration(Date.now() - began)})`];
        // Shown once: later the file that only its owner can read keeps it.
        if (first && administrator)
          lines.push(`administrator ${administrator.email}, password ${administrator.password}`);
        output.answer({ ok: true, started, ...state }, lines.join('\n'));
      }),
    );
  mad
    .command('down')
    .description('stop the system on this machine')
    .action(
      action(env, async ({ settings, output }) => {
        const stopped = await stopLocalSystem(settings.home);
        output.answer({ ok: true, stopped }, stopped ? 'stopped' : 'nothing was running');
      }),
    );
  mad
    .command('reset')
    .description("stop the local system and delete its data; refuses a system that is not this machine's own")
    .option('--yes', 'do not ask')
    .action(
      action<{ yes?: boolean }>(env, async ({ settings, output, options }) => {
        if (settings.remote)
          throw new CommandFailure('reset is for the local system only; unset MAD_URL', EXIT.refused);
        if (!existsSync(`${settings.home}/local-system`)) {
          throw new CommandFailure(`${settings.home} holds no local system; nothing was deleted`, EXIT.refused);
        }
        if (!options.yes && process.stdin.isTTY && !(await confirmed(`Delete all data in ${settings.home}?`))) {
          throw new CommandFailure('not confirmed; nothing was deleted', EXIT.refused);
        }
        await stopLocalSystem(settings.home);
        const code = await runLocal(['reset', '--home', settings.home]);
        if (code !== 0) throw new CommandFailure('the data could not be deleted', code);
        output.answer({ ok: true }, `deleted ${settings.home}`);
      }),
    );
  mad
    .command('status')
    .description('whether the local system runs, and where')
    .action(
      action(env, async ({ settings, output }) => {
        const state = readLocalState(settings.home);
        output.answer(
          { running: state !== undefined, ...state },
          state ? `${state.phase} at ${state.url}` : 'not running',
        );
        await Promise.resolve();
      }),
    );
}

async function confirmed(question: string): Promise<boolean> {
  const prompt = createInterface({ input: process.stdin, output: process.stderr });
  prompt.setPrompt(`${question} [y/N] `);
  prompt.prompt();
  const [answer] = (await once(prompt, 'line')) as [string];
  prompt.close();
  return /^y(es)?$/i.test(answer.trim());
}
