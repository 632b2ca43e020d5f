import type { HandlerContext, ServiceImpl } from '@connectrpc/connect';
import type { CacheService } from '@mad/proto/results';
import { invalid, nextPageToken, notFound, orgOf, pageOf, userOf } from '@mad/rpc';
import type { TenantTx } from '@mad/tenancy';
import type { Context } from '../context.ts';
import { cacheKey, readsCache, type CacheMiss } from '../domain/cache-entry.ts';
import { explain, forecast } from '../runs/explain.ts';
import { demandOf, requireJob } from '../runs/job-image.ts';
import { setPin } from '../runs/pin.ts';
import { checkPlans } from '../runs/plan.ts';
import {
  entryMessage,
  entryStatusOf,
  forecastMessage,
  formerMessage,
  lookUpMessage,
  missMessage,
} from './cache-convert.ts';
import { cacheInvalidations } from './cache-invalidations.ts';
import { isEntryCursor, readEntries, readEntry, readHistory, readStatistics, type EntryCursor } from './cache-rows.ts';
import { scoringTask } from './job-tasks.ts';
import { missingItem } from './result-rows.ts';

/** Earlier results that answer new jobs. */
export function cacheService(context: Context): ServiceImpl<typeof CacheService> {
  const { tenants } = context;

  async function pin(request: { task: string; inputSignature: string }, ctx: HandlerContext, to: 'pinned' | 'valid') {
    const { orgId, userId } = userOf(ctx);
    const { task, inputSignature } = request;
    return tenants.transact(orgId, async (tx) => {
      await setPin(tx, { task, inputSignature, userId }, to);
      return { entry: entryMessage(await requireEntry(tx, task, inputSignature)) };
    });
  }

  return {
    ...cacheInvalidations(context),

    async listCacheEntries(request, ctx) {
      const orgId = orgOf(ctx);
      const { task, state } = request;
      const query = ['cache', orgId, task, state];
      const { size, cursor } = pageOf(request, { query, isCursor: isEntryCursor });
      return tenants.read(orgId, async (tx) => {
        const after = cursor as EntryCursor | undefined;
        const rows = await readEntries(tx, { task, status: entryStatusOf(state), after, limit: size + 1 });
        const shown = rows.slice(0, size);
        const last = shown.at(-1);
        return {
          entries: shown.map(entryMessage),
          nextPageToken: rows.length > size ? nextPageToken(query, [last!.cursor, last!.cache_key]) : '',
        };
      });
    },

    async getCacheEntry({ task, inputSignature }, ctx) {
      return tenants.read(orgOf(ctx), async (tx) => {
        const entry = await requireEntry(tx, task, inputSignature);
        const history = await readHistory(tx, entry.cache_key);
        return { entry: entryMessage(entry), history: history.map((row) => formerMessage(row, entry)) };
      });
    },

    pinCacheEntry: (request, ctx) => pin(request, ctx, 'pinned'),

    unpinCacheEntry: (request, ctx) => pin(request, ctx, 'valid'),

    async explainCacheLookUp({ jobId, itemNo, taskId }, ctx) {
      return tenants.read(orgOf(ctx), async (tx) => {
        const job = await requireJob(tx, jobId);
        const task = scoringTask(job, taskId);
        const [item] = await tx.query<{ smiles: string; status: string; cache_miss: CacheMiss | null }>(
          'SELECT smiles, status, cache_miss FROM task_results WHERE job_id = $1 AND task_id = $2 AND item_no = $3',
          [jobId, task.taskId, itemNo],
        );
        if (item === undefined) throw missingItem(job, itemNo);
        const { min_confidence: minConfidence, max_age_s: maxAgeS, cache_policy: policy, created_at: before } = job.row;
        const demand = { minConfidence, maxAgeS };
        const missed = item.cache_miss;
        const now = await explain(tx, { plan: task.plan, smiles: item.smiles, demand, missed, before });
        return {
          cached: item.status === 'cached',
          miss: missMessage(missed),
          lookedUp: readsCache(policy),
          now: lookUpMessage(now),
        };
      });
    },

    async getCacheStatistics(_request, ctx) {
      const tasks = await tenants.read(orgOf(ctx), readStatistics);
      return {
        tasks: tasks.map(({ task, usable, pinned, expired, invalid: dead, hits }) => ({
          task,
          usable: BigInt(usable),
          pinned: BigInt(pinned),
          expired: BigInt(expired),
          invalid: BigInt(dead),
          hits: BigInt(hits),
        })),
      };
    },

    async previewLookUps(request, ctx) {
      const { orgId, tasks, smiles, explain: wanted } = request;
      checkPlans(tasks);
      const unfit = smiles.findIndex((one) => !/^[\x21-\x7e]+$/.test(one));
      if (unfit !== -1) throw invalid(`smiles[${unfit}]`, 'must be printable ASCII');
      const demand = demandOf(request);
      return tenants.read(
        orgId,
        async (tx) => {
          const forecasts = [];
          const explained = [];
          for (const plan of tasks) {
            const found = await forecast(tx, { plan, smiles, demand, show: wanted - explained.length });
            forecasts.push(forecastMessage(found));
            for (const one of found.missed)
              explained.push(lookUpMessage(await explain(tx, { plan, smiles: one, demand })));
          }
          return { tasks: forecasts, explained };
        },
        { signal: ctx.signal },
      );
    },
  };
}

async function requireEntry(tx: TenantTx, task: string, inputSignature: string) {
  const entry = await readEntry(tx, task, inputSignature);
  if (entry === undefined) throw notFound('cache entry', cacheKey(task, inputSignature));
  return entry;
}
