import type { Command } from 'commander';
import { timestampDate } from '@bufbuild/protobuf/wkt';
import { uuidv7, type Env } from '@mad/process';
import {
  RetentionCountsSchema,
  RetentionPolicySchema,
  RetentionRunSchema,
  RetentionService,
  type RetentionCounts,
  type RetentionPolicy,
  type RetentionRun,
} from '@mad/proto/results';
import { action } from '../command.ts';
import { CommandFailure, EXIT } from '../failure.ts';
import { jsonOf, table } from '../output.ts';
import { allPages } from '../pages.ts';
import { asMember } from '../session.ts';

const MIB = 2 ** 20;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

interface RuleOptions {
  days?: string;
  top: string;
  pipeline: string[];
}

/** retention show, set, preview, apply, runs. */
export function retentionCommands(mad: Command, env: Env): void {
  const retention = mad.command('retention').description('how long results are kept, and what was deleted');
  retention
    .command('show')
    .description('the policy in force')
    .action(
      action(env, async ({ settings, output }) => {
        const { api, orgId } = await asMember(settings);
        const { policy } = await api.client(RetentionService).getRetentionPolicy({ orgId });
        output.answer(jsonOf(RetentionPolicySchema, policy), policyText(policy!));
      }),
    );
  withRules(
    retention
      .command('set')
      .description('put another policy in force; the clock applies it a day later, `mad retention apply` at once'),
  )
    .option('--forever', 'keep everything; instead of any rule')
    .action(
      action<RuleOptions & { forever?: boolean }>(env, async ({ settings, output, options }) => {
        const rules = rulesOf(options);
        if ((rules.length === 0) !== (options.forever === true)) {
          throw new CommandFailure('say how long results are kept by --days or --pipeline, or --forever', EXIT.usage);
        }
        const { api, orgId } = await asMember(settings);
        const { policy } = await api.client(RetentionService).setRetentionPolicy({ orgId, requestId: uuidv7(), rules });
        output.answer(jsonOf(RetentionPolicySchema, policy), policyText(policy!));
      }),
    );
  withRules(
    retention.command('preview').description('what the policy in force, or another one, would delete now'),
  ).action(
    action<RuleOptions>(env, async ({ settings, output, options }) => {
      const { api, orgId } = await asMember(settings);
      const request = { orgId, rules: rulesOf(options) };
      const { wouldDelete } = await api.client(RetentionService).previewRetention(request);
      output.answer(jsonOf(RetentionCountsSchema, wouldDelete), `would delete ${countsText(wouldDelete!)}`);
    }),
  );
  retention
    .command('apply')
    .description('delete what the policy in force says')
    .option('--yes', 'needed: what is deleted does not come back')
    .option('--run <id>', 'go on with a run that was cut')
    .action(
      action<{ yes?: true; run?: string }>(env, async ({ settings, output, options }) => {
        if (options.yes === undefined) {
          throw new CommandFailure('this deletes results: look at `mad retention preview`, then say --yes', EXIT.usage);
        }
        const { api, orgId } = await asMember(settings);
        const requestId = options.run ?? uuidv7();
        output.note(`run ${requestId}`);
        for (;;) {
          const { run } = await api.client(RetentionService).applyRetention({ orgId, requestId });
          if (run!.endTime !== undefined) {
            output.answer(jsonOf(RetentionRunSchema, run), `deleted ${countsText(run!.deleted!)}`);
            return;
          }
          output.note(`… ${countsText(run!.deleted!)}`);
        }
      }),
    );
  retention
    .command('runs')
    .description('what was deleted, newest first')
    .option('--limit <n>', 'at most this many', Number, 50)
    .action(
      action<{ limit: number }>(env, async ({ settings, output, options }) => {
        const { api, orgId } = await asMember(settings);
        const runs = await allPages(
          (pageToken) => api.client(RetentionService).listRetentionRuns({ orgId, pageToken }),
          (page) => page.runs,
          options.limit,
        );
        output.answer(
          runs.map((run) => jsonOf(RetentionRunSchema, run)),
          table(['run', 'began', 'by', 'policy', 'jobs', 'items', 'poses', 'MiB', ''], runs.map(runRow)),
        );
      }),
    );
}

function withRules(command: Command): Command {
  return command
    .option('--days <n>', 'days since a job ended; 0 is for ever')
    .option('--top <n>', 'the best hits of each task that are kept beyond that', '0')
    .option(
      '--pipeline <id:days[:top]>',
      "another rule for one pipeline's jobs; may be given again",
      (text: string, others: string[]) => [...others, text],
      [],
    );
}

interface Rule {
  pipelineId: string;
  keepDays: number;
  keepTopHits: number;
}

function rulesOf({ days, top, pipeline }: RuleOptions): Rule[] {
  const own = pipeline.map((text): Rule => {
    const [pipelineId = '', itsDays = '', itsTop = '0', ...more] = text.split(':');
    if (!UUID.test(pipelineId) || more.length > 0) {
      throw new CommandFailure(
        `--pipeline ${text}: write <pipeline id>:<days>, or <pipeline id>:<days>:<hits>`,
        EXIT.usage,
      );
    }
    return { pipelineId, keepDays: whole('--pipeline', itsDays), keepTopHits: whole('--pipeline', itsTop) };
  });
  if (days === undefined) return own;
  return [{ pipelineId: '', keepDays: whole('--days', days), keepTopHits: whole('--top', top) }, ...own];
}

function whole(option: string, text: string): number {
  if (!/^\d{1,6}$/.test(text)) throw new CommandFailure(`${option} ${text}: write a whole number`, EXIT.usage);
  return Number(text);
}

function policyText({ rules, version }: RetentionPolicy): string {
  if (rules.length === 0) return 'everything is kept for ever';
  const lines = rules.map(({ pipelineId, keepDays, keepTopHits }) => {
    const whose = pipelineId === '' ? 'all other pipelines' : `pipeline ${pipelineId}`;
    const beyond = keepTopHits === 0 ? '' : `, the best ${keepTopHits} hits of each task for ever`;
    return `${whose}: ${keepDays === 0 ? 'for ever' : `${keepDays} days${beyond}`}`;
  });
  return [`policy ${version}`, ...lines].join('\n');
}

function countsText(counts: RetentionCounts): string {
  const { jobs, items, poses, events, cacheEntries, partitions } = counts;
  return [
    `${items} items, ${poses} poses and ${events} events of ${jobs} jobs (${mib(counts)} MiB)`,
    `${cacheEntries} entries of the cache`,
    `${partitions} partitions`,
  ].join(', ');
}

const mib = ({ bytes }: RetentionCounts): string => (Number(bytes) / MIB).toFixed(1);

function runRow({ runId, startTime, startedBy, policyVersion, deleted, endTime }: RetentionRun): (string | number)[] {
  const counts = [deleted!.jobs, deleted!.items, deleted!.poses].map(Number);
  const by = startedBy === '' ? 'the clock' : startedBy;
  const began = timestampDate(startTime!).toISOString();
  return [runId, began, by, policyVersion, ...counts, mib(deleted!), endTime === undefined ? 'under way' : ''];
}
