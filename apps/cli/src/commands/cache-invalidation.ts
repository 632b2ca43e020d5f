import type { Command } from 'commander';
import { timestampDate, timestampFromDate, type Timestamp } from '@bufbuild/protobuf/wkt';
import { uuidv7, type Env } from '@mad/process';
import { MoleculeService } from '@mad/proto/catalog';
import { CacheInvalidationSchema, CacheService, InvalidateCacheEntriesResponseSchema } from '@mad/proto/results';
import { action } from '../command.ts';
import { CommandFailure, EXIT } from '../failure.ts';
import { jsonOf, table } from '../output.ts';
import { allPages } from '../pages.ts';
import { asMember, type Signed } from '../session.ts';

interface InvalidateOptions {
  task: string;
  engine: string;
  from: string;
  before: string;
  molecule: string;
  job: string;
  includePinned?: boolean;
  reason: string;
  dryRun?: boolean;
}

/** cache invalidate, undo, invalidations. `cache` is the family they belong to. */
export function cacheInvalidationCommands(cache: Command, env: Env): void {
  cache
    .command('invalidate')
    .description('take results out of the cache that all of this holds of; `mad cache undo` gives them back')
    .option('--task <name>', 'of this task, e.g. vina.dock', '')
    .option('--engine <engine>', 'computed by this engine: vina, or vina@1.2.3', '')
    .option('--from <time>', 'computed at this time or later, e.g. 2026-11-01 or 2026-11-01T12:00:00Z', '')
    .option('--before <time>', 'computed before this time', '')
    .option('--molecule <id>', 'of this molecule', '')
    .option('--job <id>', 'computed by this job', '')
    .option('--include-pinned', 'pinned ones too')
    .option('--reason <text>', 'why; stays in the audit log', '')
    .option('--dry-run', 'only count')
    .action(
      action<InvalidateOptions>(env, async ({ settings, output, options }) => {
        const signed = await asMember(settings);
        const { dryRun = false, reason } = options;
        const answer = await signed.api.client(CacheService).invalidateCacheEntries({
          orgId: signed.orgId,
          requestId: uuidv7(),
          predicate: {
            task: options.task,
            engine: options.engine,
            computedFrom: timeOf('--from', options.from),
            computedBefore: timeOf('--before', options.before),
            smiles: await smilesOf(signed, options.molecule),
            jobId: options.job,
            includePinned: options.includePinned ?? false,
          },
          reason,
          dryRun,
        });
        const { invalidationId, entries, jobs } = answer.invalidation!;
        const uses = `which answered ${answer.items} items of ${jobs} other jobs and may be in ${answer.exports} exports`;
        const counts = `${entries} results, ${uses}`;
        const text = dryRun
          ? `would invalidate ${counts}`
          : `invalidated ${counts}\nundo: mad cache undo ${invalidationId}`;
        output.answer(jsonOf(InvalidateCacheEntriesResponseSchema, answer), text);
      }),
    );
  cache
    .command('undo <invalidation>')
    .description('give back the results an invalidation took out, but for those replaced since')
    .action(
      action(env, async ({ settings, output }, invalidationId) => {
        const { api, orgId } = await asMember(settings);
        const { invalidation } = await api.client(CacheService).undoCacheInvalidation({ orgId, invalidationId });
        const text = `given back: ${invalidation!.restored} of ${invalidation!.entries} results`;
        output.answer(jsonOf(CacheInvalidationSchema, invalidation), text);
      }),
    );
  cache
    .command('invalidations')
    .description('what was invalidated, newest first')
    .option('--limit <n>', 'at most this many', Number, 50)
    .action(
      action<{ limit: number }>(env, async ({ settings, output, options }) => {
        const { api, orgId } = await asMember(settings);
        const found = await allPages(
          (pageToken) => api.client(CacheService).listCacheInvalidations({ orgId, pageToken }),
          (page) => page.invalidations,
          options.limit,
        );
        const rows = found.map((one) => [
          one.invalidationId,
          timestampDate(one.createTime!).toISOString(),
          Number(one.entries),
          Number(one.jobs),
          one.undoTime ? `undone, ${one.restored} given back` : '',
          one.reason,
        ]);
        output.answer(
          found.map((one) => jsonOf(CacheInvalidationSchema, one)),
          table(['invalidation', 'time', 'results', 'jobs', '', 'reason'], rows),
        );
      }),
    );
}

function timeOf(option: string, text: string): Timestamp | undefined {
  if (text === '') return undefined;
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) {
    throw new CommandFailure(`${option} ${text}: write a date or a time, e.g. 2026-11-01T12:00:00Z`, EXIT.usage);
  }
  return timestampFromDate(time);
}

async function smilesOf({ api, orgId }: Signed, moleculeId: string): Promise<string> {
  if (moleculeId === '') return '';
  const { molecule } = await api.client(MoleculeService).getMolecule({ orgId, moleculeId });
  return molecule!.canonicalSmiles;
}
