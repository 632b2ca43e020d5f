import type { Command } from 'commander';
import type { Env } from '@mad/process';
import { JobPreviewService, PreviewJobResponseSchema } from '@mad/proto/catalog';
import {
  CacheEntrySchema,
  CacheEntryState,
  CacheService,
  ExplainCacheLookUpResponseSchema,
  GetCacheStatisticsResponseSchema,
} from '@mad/proto/results';
import { ageOf, entryStateName, entryTable, explanationText, previewText } from '../cache-text.ts';
import { action } from '../command.ts';
import { CommandFailure, EXIT } from '../failure.ts';
import { setByName } from '../jobs.ts';
import { jsonOf, table } from '../output.ts';
import { allPages } from '../pages.ts';
import { asMember } from '../session.ts';
import { cacheInvalidationCommands } from './cache-invalidation.ts';
import { parametersOf } from './job.ts';
import { pipelineByName } from './pipeline.ts';

interface ListOptions {
  limit: number;
  task: string;
  state: string;
}

interface PreviewOptions {
  set: string;
  param: string[];
  minConfidence: number;
  maxAge: string;
  explain: number;
}

/** cache list, explain, preview, pin, unpin, stats, invalidate, undo, invalidations. */
export function cacheCommands(mad: Command, env: Env): void {
  const cache = mad.command('cache').description('earlier results that answer new jobs');
  cache
    .command('list')
    .description('what is kept, newest first')
    .option('--limit <n>', 'at most this many', Number, 50)
    .option('--task <name>', "only this task's, e.g. vina.dock", '')
    .option('--state <state>', 'only valid, invalid or pinned ones', '')
    .action(
      action<ListOptions>(env, async ({ settings, output, options }) => {
        const { api, orgId } = await asMember(settings);
        const request = { orgId, task: options.task, state: stateOf(options.state) };
        const pageSize = Math.min(Math.max(options.limit, 1), 1000);
        const entries = await allPages(
          (pageToken) => api.client(CacheService).listCacheEntries({ ...request, pageSize, pageToken }),
          (page) => page.entries,
          options.limit,
        );
        output.answer(
          entries.map((one) => jsonOf(CacheEntrySchema, one)),
          entryTable(entries),
        );
      }),
    );
  cache
    .command('explain <job> <item>')
    .description('why an item was answered or not, and the earlier result that differs least')
    .option('--task <id>', "the task; default: the job's last that gives scores", '')
    .action(
      action<{ task: string }>(env, async ({ settings, output, options }, jobId, itemNo) => {
        const { api, orgId } = await asMember(settings);
        const request = { orgId, jobId, itemNo: Number(itemNo), taskId: options.task };
        const told = await api.client(CacheService).explainCacheLookUp(request);
        output.answer(jsonOf(ExplainCacheLookUpResponseSchema, told), explanationText(told));
      }),
    );
  cache
    .command('preview <pipeline>')
    .description('how many molecules of a library earlier results would answer, and why not the others')
    .requiredOption('--set <name>', 'the library, by name or id')
    .option('--param <name=value...>', "the pipeline's parameters; values are JSON or plain text", [])
    .option('--min-confidence <share>', 'take no result below this, 0–1', Number, 0)
    .option('--max-age <age>', 'take no result older than this: 45s, 90m, 12h, 30d', '')
    .option('--explain <n>', 'explain this many misses, 0–20', Number, 3)
    .action(
      action<PreviewOptions>(env, async ({ settings, output, options }, pipeline) => {
        const signed = await asMember(settings);
        const { pipelineId } = await pipelineByName(signed, pipeline);
        const preview = await signed.api.client(JobPreviewService).previewJob({
          orgId: signed.orgId,
          pipelineId,
          moleculeSetId: await setByName(signed, options.set),
          parameters: parametersOf(options.param),
          minConfidence: options.minConfidence,
          maxAgeS: ageOf(options.maxAge),
          explain: options.explain,
        });
        output.answer(jsonOf(PreviewJobResponseSchema, preview), previewText(preview));
      }),
    );
  for (const name of ['pin', 'unpin'] as const) {
    const pins = name === 'pin';
    cache
      .command(`${name} <task> <signature>`)
      .description(pins ? 'keep an entry: it neither expires nor is replaced' : 'let an entry expire and be replaced')
      .action(
        action(env, async ({ settings, output }, task, inputSignature) => {
          const { api, orgId } = await asMember(settings);
          const client = api.client(CacheService);
          const request = { orgId, task, inputSignature };
          const { entry } = await (pins ? client.pinCacheEntry(request) : client.unpinCacheEntry(request));
          output.answer(jsonOf(CacheEntrySchema, entry), `${task} ${inputSignature}: ${entryStateName(entry!.state)}`);
        }),
      );
  }
  cache
    .command('stats')
    .description('how much is kept, task by task, and how often it answered')
    .action(
      action(env, async ({ settings, output }) => {
        const { api, orgId } = await asMember(settings);
        const statistics = await api.client(CacheService).getCacheStatistics({ orgId });
        const rows = statistics.tasks.map(({ task, usable, pinned, expired, invalid, hits }) => [
          task,
          ...[usable, pinned, expired, invalid, hits].map(Number),
        ]);
        output.answer(
          jsonOf(GetCacheStatisticsResponseSchema, statistics),
          table(['task', 'usable', 'pinned', 'expired', 'invalid', 'hits'], rows),
        );
      }),
    );
  cacheInvalidationCommands(cache, env);
}

function stateOf(name: string): CacheEntryState {
  const states: Record<string, CacheEntryState> = {
    '': CacheEntryState.UNSPECIFIED,
    valid: CacheEntryState.VALID,
    invalid: CacheEntryState.INVALID,
    pinned: CacheEntryState.PINNED,
  };
  const state = states[name];
  if (state === undefined) throw new CommandFailure(`--state ${name}: valid, invalid or pinned`, EXIT.usage);
  return state;
}
