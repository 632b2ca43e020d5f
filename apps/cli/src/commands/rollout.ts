import type { Command } from 'commander';
import { create } from '@bufbuild/protobuf';
import { timestampDate } from '@bufbuild/protobuf/wkt';
import { uuidv7, type Env } from '@mad/process';
import {
  PlannedMigrationSchema,
  PlannedTenantSchema,
  RolloutRulesSchema,
  RolloutRunSchema,
  RolloutRunState,
  RolloutSchema,
  RolloutService,
  RolloutState,
  type PlannedMigration,
  type Rollout,
  type RolloutRun,
} from '@mad/proto/provisioner';
import type { Api } from '../api.ts';
import { action } from '../command.ts';
import { CommandFailure, EXIT } from '../failure.ts';
import { jsonOf, table, type Output } from '../output.ts';
import { allPages, pageSizeFor } from '../pages.ts';
import { progressBar } from '../progress.ts';
import { asPlatform } from '../session.ts';
import { runsLeft, watchRollout } from '../watch-rollout.ts';

interface StartOptions {
  schema: string;
  verify?: string;
  detach?: true;
  canaries: number;
  waveSize: number;
  concurrency: number;
  maxFailures: number;
  maxFailurePercent: number;
  attempts: number;
  maxLatency: number;
}

/** db rollout plan, start, watch, pause, resume, abort, rollback, get, list: migrations through the fleet. */
export function rolloutCommands(db: Command, env: Env): void {
  const rollout = db
    .command('rollout')
    .description("the newest version of a schema on its way through everybody's databases");
  const verification = [
    '--verify <command>',
    'run here after the tenants labelled staging, with MAD_ROLLOUT; nobody else is touched unless it exits with 0',
  ] as const;
  rollout
    .command('plan')
    .description(
      'each database with what it has and lacks, tried in a transaction that is rolled back; exit code 1 when a try fails',
    )
    .option('--schema <schema>', 'the tenant schema', 'results')
    .option('--no-try', 'only say what would run')
    .action(
      action<{ schema: string; try: boolean }>(env, async ({ settings, output, options }) => {
        const { api } = await asPlatform(settings);
        const client = api.client(RolloutService);
        const bar = progressBar(output, 'planning', 0);
        let version = '';
        let seen = 0;
        const migrations = new Map<string, PlannedMigration>();
        const tenants = await allPages(
          (pageToken) => client.planRollout({ schema: options.schema, skipTry: !options.try, pageToken }),
          (page) => {
            version = page.version;
            for (const one of page.migrations) migrations.set(one.name, one);
            seen += page.tenants.length;
            bar.update(seen, '', seen);
            return page.tenants;
          },
        );
        bar.stop();
        const failed = tenants.filter(({ error }) => error !== '');
        const rows = tenants.map((one) => [
          one.databaseName,
          one.staging ? 'staging' : '',
          one.fromVersion,
          version,
          one.migrations.length,
          Number(one.rowsToChange),
          one.error || (one.triedWithoutData.length > 0 ? `without data: ${one.triedWithoutData.join(', ')}` : ''),
        ]);
        const statements = [...migrations.values()].map(({ name, sql, transactional }) => {
          return `-- ${name}${transactional ? '' : ' (in no transaction)'}\n${sql}`;
        });
        output.answer(
          {
            ok: failed.length === 0,
            version,
            tenants: tenants.map((one) => jsonOf(PlannedTenantSchema, one)),
            migrations: [...migrations.values()].map((one) => jsonOf(PlannedMigrationSchema, one)),
          },
          [table(['database', 'label', 'from', 'to', 'migrations', 'rows', 'error'], rows), ...statements].join('\n\n'),
        );
        if (failed.length > 0) process.exitCode = EXIT.failed;
      }),
    );
  rollout
    .command('start')
    .description('begin and watch it; exit code 1 when it halts or a database failed')
    .option('--schema <schema>', 'the tenant schema', 'results')
    .option(...verification)
    .option('--detach', 'begin it and return')
    .option('--canaries <n>', 'databases of the first wave', Number, 5)
    .option('--wave-size <n>', 'databases of each wave after it', Number, 100)
    .option('--concurrency <n>', 'databases at once', Number, 4)
    .option('--max-failures <n>', 'more in one wave halt it; one among staging and canaries does', Number, 5)
    .option('--max-failure-percent <n>', 'a larger share of a wave halts it', Number, 100)
    .option('--attempts <n>', 'tries where somebody holds a table', Number, 3)
    .option('--max-latency <ms>', 'a server that answers later after a wave halts it', Number, 1000)
    .action(
      action<StartOptions>(env, async ({ settings, output, options }) => {
        const { schema, verify, detach } = options;
        const { canaries, waveSize, concurrency, maxFailures, maxFailurePercent, attempts, maxLatency } = options;
        const numbers = {
          canaries,
          waveSize,
          concurrency,
          maxFailures,
          maxFailurePercent,
          attempts,
          maxLatencyMs: maxLatency,
        };
        for (const [name, value] of Object.entries(numbers)) {
          if (!Number.isSafeInteger(value) || value < 1)
            throw new CommandFailure(`${name}: must be a positive number`, EXIT.usage);
        }
        const { api } = await asPlatform(settings);
        const rules = create(RolloutRulesSchema, { ...numbers, verification: verify !== undefined });
        const { rollout: begun } = await api
          .client(RolloutService)
          .startRollout({ schema, rules, requestId: uuidv7() });
        if (detach) output.answer(jsonOf(RolloutSchema, begun), rolloutText(begun!));
        else await answerEnd(api, output, await watchRollout(api, output, begun!.rolloutId, verify));
      }),
    );
  rollout
    .command('watch <rollout>')
    .description('show progress until it ends or waits for somebody; exit code 1 when it halted or a database failed')
    .option(...verification)
    .action(
      action<{ verify?: string }>(env, async ({ settings, output, options }, rolloutId) => {
        const { api } = await asPlatform(settings);
        await answerEnd(api, output, await watchRollout(api, output, rolloutId, options.verify));
      }),
    );
  rollout
    .command('resume <rollout>')
    .description('go on with what is left, and watch it: what failed is tried again')
    .option(...verification)
    .option('--detach', 'go on and return')
    .action(
      action<{ verify?: string; detach?: true }>(env, async ({ settings, output, options }, rolloutId) => {
        const { api } = await asPlatform(settings);
        const { rollout: now } = await api.client(RolloutService).resumeRollout({ rolloutId });
        if (options.detach) output.answer(jsonOf(RolloutSchema, now), rolloutText(now!));
        else await answerEnd(api, output, await watchRollout(api, output, rolloutId, options.verify));
      }),
    );
  rollout
    .command('pause <rollout>')
    .description('finish what was begun, begin nothing else')
    .action(
      action(env, async ({ settings, output }, rolloutId) => {
        const { api } = await asPlatform(settings);
        const { rollout: now } = await api.client(RolloutService).pauseRollout({ rolloutId });
        output.answer(jsonOf(RolloutSchema, now), rolloutText(now!));
      }),
    );
  rollout
    .command('abort <rollout>')
    .description('give it up: what was not begun stays where it is')
    .action(
      action(env, async ({ settings, output }, rolloutId) => {
        const { api } = await asPlatform(settings);
        const { rollout: now } = await api.client(RolloutService).abortRollout({ rolloutId });
        output.answer(jsonOf(RolloutSchema, now), rolloutText(now!));
      }),
    );
  rollout
    .command('rollback <rollout>')
    .description('take back what it did: its databases go down to the version each had')
    .option('--yes', 'needed: what the new version stored beside the old one is lost')
    .action(
      action<{ yes?: true }>(env, async ({ settings, output, options }, rolloutId) => {
        if (options.yes === undefined)
          throw new CommandFailure('this drops what the version added: say --yes', EXIT.usage);
        const { api } = await asPlatform(settings);
        await api.client(RolloutService).rollBackRollout({ rolloutId });
        await answerEnd(api, output, await watchRollout(api, output, rolloutId, undefined));
      }),
    );
  rollout
    .command('get <rollout>')
    .description('a rollout and its databases that failed or wait')
    .option('--all', 'every database')
    .action(
      action<{ all?: true }>(env, async ({ settings, output, options }, rolloutId) => {
        const { api } = await asPlatform(settings);
        const client = api.client(RolloutService);
        const { rollout: found } = await client.getRollout({ rolloutId });
        const runs = options.all
          ? await allPages(
              (pageToken) => client.listRolloutRuns({ rolloutId, pageToken, pageSize: 200 }),
              (page) => page.runs,
            )
          : await runsLeft(api, rolloutId);
        output.answer(
          { ...(jsonOf(RolloutSchema, found) as object), runs: runs.map((one) => jsonOf(RolloutRunSchema, one)) },
          textWithRuns(found!, runs),
        );
      }),
    );
  rollout
    .command('list')
    .description('rollouts, newest first')
    .option('--schema <schema>', 'only of this tenant schema', '')
    .option('--limit <n>', 'at most this many', Number, 50)
    .action(
      action<{ schema: string; limit: number }>(env, async ({ settings, output, options }) => {
        const { api } = await asPlatform(settings);
        const request = { schema: options.schema, pageSize: pageSizeFor(options.limit) };
        const rollouts = await allPages(
          (pageToken) => api.client(RolloutService).listRollouts({ ...request, pageToken }),
          (page) => page.rollouts,
          options.limit,
        );
        const rows = rollouts.map((one) => [
          one.rolloutId,
          one.schema,
          one.version,
          RolloutState[one.state].toLowerCase(),
          `${one.counts!.succeeded}/${one.counts!.total}`,
          one.counts!.failed,
          timestampDate(one.createTime!).toISOString(),
          one.reason,
        ]);
        output.answer(
          rollouts.map((one) => jsonOf(RolloutSchema, one)),
          table(['rollout', 'schema', 'version', 'state', 'done', 'failed', 'began', 'reason'], rows),
        );
      }),
    );
}

/** How it ended: exit code 1 unless every database is where it should be, or waits in the queue. */
async function answerEnd(api: Api, output: Output, last: Rollout): Promise<void> {
  const runs = await runsLeft(api, last.rolloutId);
  output.answer(
    { ...(jsonOf(RolloutSchema, last) as object), runs: runs.map((one) => jsonOf(RolloutRunSchema, one)) },
    textWithRuns(last, runs),
  );
  if (!isGood(last)) process.exitCode = EXIT.failed;
}

/** Whether a rollout did what was asked of it. */
export function isGood({ state, counts }: Rollout): boolean {
  const ended = state === RolloutState.SUCCEEDED || state === RolloutState.ROLLED_BACK;
  return ended && counts!.failed === 0;
}

function textWithRuns(one: Rollout, runs: readonly RolloutRun[]): string {
  const rows = runs.map((run) => [
    run.databaseName,
    run.wave,
    RolloutRunState[run.state].toLowerCase(),
    run.fromVersion,
    run.attempts,
    run.error,
  ]);
  const inside = runs.length === 0 ? '' : `\n\n${table(['database', 'wave', 'state', 'from', 'tries', 'error'], rows)}`;
  return `${rolloutText(one)}${inside}`;
}

/** A rollout in one line. */
export function rolloutText({ rolloutId, schema, version, state, wave, counts, reason }: Rollout): string {
  const { total, succeeded, pending, running, failed, queued, rolledBack, skipped } = counts!;
  const parts = { succeeded, pending, running, failed, queued, 'rolled back': rolledBack, skipped };
  const told = Object.entries(parts).flatMap(([name, count]) => (count > 0 ? [`${count} ${name}`] : []));
  const why = reason === '' ? '' : `: ${reason}`;
  const name = RolloutState[state].toLowerCase().replace('_', ' ');
  return `${rolloutId} ${schema} to ${version}: ${name} at wave ${wave}, ${total} = ${told.join(' + ') || '0'}${why}`;
}
