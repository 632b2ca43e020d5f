import type { TenantTx } from '@mad/tenancy';
import { cacheKey } from '../domain/cache-entry.ts';
import { hasResult } from '../domain/work-item.ts';
import type { ItemRow } from './convert.ts';

/** Items of one page with the job they belong to and the definition of their task. */
export interface ShownItem {
  row: ItemRow;
  jobId: string;
  task: string;
}

const source = ({ row, jobId }: ShownItem): string =>
  row.reused_from_job_id === null
    ? `${jobId}/${row.task_id}/${row.item_no}`
    : `${row.reused_from_job_id}/${row.reused_from_task_id}/${row.reused_from_item_no}`;

/** Those of the items whose result, their own or the one they were answered from, was invalidated. One statement. */
export async function invalidatedAmong(tx: TenantTx, items: readonly ShownItem[]): Promise<Set<ItemRow>> {
  const answered = items.filter(({ row }) => hasResult(row.status));
  if (answered.length === 0) return new Set();
  const keys = [...new Set(answered.map(({ row, task }) => cacheKey(task, row.input_signature)))];
  const rows = await tx.query<{ source: string }>(
    `SELECT canonical_job_id || '/' || canonical_task_id || '/' || canonical_item_no AS source FROM result_cache
      WHERE cache_key = ANY ($1::text[]) AND status = 'invalid'
    UNION ALL
    SELECT canonical_job_id || '/' || canonical_task_id || '/' || canonical_item_no FROM result_cache_history
      WHERE cache_key = ANY ($1::text[]) AND status = 'invalid'`,
    [keys],
  );
  const dead = new Set(rows.map((row) => row.source));
  return new Set(answered.filter((item) => dead.has(source(item))).map(({ row }) => row));
}
