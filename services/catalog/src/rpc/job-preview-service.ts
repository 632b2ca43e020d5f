import type { ServiceImpl } from '@connectrpc/connect';
import type { JobPreviewService } from '@mad/proto/catalog';
import { userOf } from '@mad/rpc';
import type { CatalogContext } from '../context.ts';
import { requireInput } from '../jobs/job-input.ts';
import { previewJob } from '../jobs/preview.ts';

/** What a job would find, before it is submitted. */
export function jobPreviewService(context: CatalogContext): ServiceImpl<typeof JobPreviewService> {
  return {
    async previewJob(request, ctx) {
      const { orgId } = userOf(ctx);
      requireInput(request);
      await context.organizations.require(orgId, 'reading');
      const { molecules, tasks, explained } = await previewJob(context, orgId, request, ctx);
      return {
        molecules: BigInt(molecules),
        tasks: tasks.map(({ taskId, task, hits, misses }) => ({
          taskId,
          task,
          hits,
          misses: [...misses].map(([miss, items]) => ({ miss, items })).toSorted((a, b) => Number(b.items - a.items)),
        })),
        explained,
      };
    },
  };
}
