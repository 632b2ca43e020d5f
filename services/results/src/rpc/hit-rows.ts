import type { TenantTx } from '@mad/tenancy';
import { leavesOutBetter, type HitFilter } from '../domain/hit-filter.ts';
import type { JobTask } from '../runs/job-image.ts';
import { planned } from '../runs/planned.ts';
import { ITEM_COLUMNS, itemBytes, type ItemRow } from './convert.ts';
import { fillPage } from './fill-page.ts';

/** Where a page of hits ends. The rank is 0 where it is not known. */
export type HitCursor = [score: number, itemNo: number, rank: number];

/** A hit with its place, from 1; 0 where it is not known. */
export type HitRow = ItemRow & { rank: number };

/** A page of hits. */
export interface HitPage<Row> {
  rows: Row[];
  /** Where to go on; undefined at the end. */
  next: HitCursor | undefined;
}

/** What to read. */
export interface HitQuery {
  filter: HitFilter;
  bestPerMolecule: boolean;
  after: HitCursor | undefined;
  size: number;
  /** Only hits that had ended at this event of the job. */
  endedBy?: number | undefined;
}

/** Hits looked at for a page at most: what is filtered out costs too. */
const MOST_EXAMINED = 50_000;
/** The first step looks at some more than the page has rows, each following one at more. */
const LEAST_STEP = 200;
const STEP_GROWTH = 4;

/** What the index of hits holds, and only that. Say it as the index does, or it is not used. */
export const IS_HIT = `status IN ('scored', 'cached') AND score IS NOT NULL`;

/**
 * Whether `t`, a hit of job $1 and task $2, is the first of its molecule: a look-up for each, where an anti-join might walk all
 * items for each.
 */
export const isFirstOfMolecule = (task: JobTask): string =>
  `t.item_no = (SELECT e.item_no FROM task_results e WHERE e.job_id = $1 AND e.task_id = $2
  AND e.molecule_id = t.molecule_id AND e.status IN ('scored', 'cached') AND e.score IS NOT NULL${keptBound(task, { item: 'e.' })} ORDER BY e.item_no LIMIT 1)`;

/** SQL of the hits' order: along the index where a lower score is better, against it where a higher one is. */
export function orderOf({ plan }: JobTask): { comparison: string; direction: string; start: HitCursor } {
  return plan.lowerIsBetter
    ? { comparison: '>', direction: 'ASC', start: [-Infinity, 0, 0] }
    : { comparison: '<', direction: 'DESC', start: [Infinity, 0, 0] };
}

/**
 * While retention drops items of a task, its lists are of the hits alone that are kept: bounds a walk along the index of
 * hits by the last one of them. Empty at any other time. `job` and `taskId` are parameters, `item` says whose columns.
 */
export function keptBound(
  task: JobTask,
  { job = '$1', taskId = '$2', item = '' }: { job?: string; taskId?: string; item?: string } = {},
): string {
  if (task.keptTop === undefined) return '';
  if (task.keptTop === 0) return ' AND false';
  const { comparison, direction, start } = orderOf(task);
  const last = (column: string, otherwise: string): string => `coalesce((
    SELECT k.${column} FROM task_results k WHERE k.job_id = ${job}::uuid AND k.task_id = ${taskId}::text AND k.status IN ('scored', 'cached')
      AND k.score IS NOT NULL ORDER BY k.score ${direction}, k.item_no ${direction} OFFSET ${task.keptTop! - 1} LIMIT 1), ${otherwise})`;
  const end = `(${last('score', `'${-start[0]}'::float8`)}, ${last('item_no', '0')})`;
  return ` AND (${item}score, ${item}item_no) ${comparison === '>' ? '<=' : '>='} ${end}`;
}

/**
 * A page of the task's hits, best first, straight from the index that holds only those, after `after` and stable while more
 * arrive: who was seen is not seen again. Filters beyond the score's are looked up hit by hit, `MOST_EXAMINED` a page at
 * most, so a page may be short, or empty, and go on; it is short as well where its hits are large.
 */
export async function readHits(tx: TenantTx, jobId: string, task: JobTask, query: HitQuery): Promise<HitPage<HitRow>> {
  const { filter, bestPerMolecule } = query;
  const conditions = [
    ...filter.properties.map(({ property, comparison, value }) => ({
      sql: `t.${property} ${comparison}`,
      value,
      cast: '::float8',
    })),
    ...(filter.source === undefined
      ? []
      : [{ sql: 't.status =', value: filter.source === 'cached' ? 'cached' : 'scored', cast: '::work_status' }]),
  ];
  if (conditions.length === 0 && !bestPerMolecule) return readUnfiltered(tx, jobId, task, query);
  const page = await examine(tx, jobId, task, query, (param) => {
    const parts = conditions.map(({ sql, value, cast }) => `${sql} ${param(value)}${cast}`);
    return { fits: [...parts, ...(bestPerMolecule ? [isFirstOfMolecule(task)] : [])].join(' AND ') };
  });
  const { rows, more } = await fillPage<HitRow>({
    size: page.rows.length,
    read: async ({ length }, limit) => {
      const places = page.rows.slice(length, length + limit);
      const items = await readItemsOf(tx, jobId, task.taskId, places);
      return places.map(({ item_no, rank }) => ({ ...items.get(item_no)!, rank }));
    },
    bytesOf: itemBytes,
  });
  return { rows, next: more ? cursorAt(rows.at(-1)!) : page.next };
}

const cursorAt = ({ score, item_no: itemNo, rank }: HitRow): HitCursor => [score!, itemNo, rank];

/** Items by their numbers. */
async function readItemsOf(
  tx: TenantTx,
  jobId: string,
  taskId: string,
  places: readonly { item_no: number }[],
): Promise<Map<number, ItemRow>> {
  const rows = await tx.query<ItemRow>(
    `SELECT ${ITEM_COLUMNS} FROM task_results WHERE job_id = $1 AND task_id = $2 AND item_no = ANY ($3::int[])`,
    [jobId, taskId, places.map(({ item_no: itemNo }) => itemNo)],
  );
  return new Map(rows.map((row) => [row.item_no, row]));
}

/** What bounds the walk along the index itself: the score, and the event after which nothing counts. */
function boundsOf(filter: HitFilter, endedBy: number | undefined, param: (value: unknown) => string): string {
  const ofScore = filter.score.map((term) => ` AND score ${term.comparison} ${param(term.value)}::float8`).join('');
  return endedBy === undefined ? ofScore : `${ofScore} AND (ended_seq IS NULL OR ended_seq <= ${param(endedBy)}::int)`;
}

async function readUnfiltered(
  tx: TenantTx,
  jobId: string,
  task: JobTask,
  { filter, after, size, endedBy }: HitQuery,
): Promise<HitPage<HitRow>> {
  const { comparison, direction, start } = orderOf(task);
  const [score, itemNo, rank] = after ?? start;
  const left = (filter.maxRank ?? Infinity) - rank;
  if (left <= 0) return { rows: [], next: undefined };
  const ranked = !leavesOutBetter(filter, task.plan.lowerIsBetter);
  const { rows, more } = await fillPage<HitRow>({
    size,
    read: async (known, limit) => {
      const last = known.at(-1);
      const place = [last?.score ?? score, last?.item_no ?? itemNo];
      const params: unknown[] = [jobId, task.taskId, ...place, Math.min(limit, left - known.length)];
      const bounds = boundsOf(filter, endedBy, (value) => `$${params.push(value)}`) + keptBound(task);
      const found = await tx.query<ItemRow>(
        `SELECT ${ITEM_COLUMNS} FROM task_results
          WHERE job_id = $1 AND task_id = $2 AND ${IS_HIT} AND (score, item_no) ${comparison} ($3::float8, $4::int)${bounds}
          ORDER BY score ${direction}, item_no ${direction} LIMIT $5`,
        params,
      );
      return found.map((row, index) => ({ ...row, rank: ranked ? rank + known.length + index + 1 : 0 }));
    },
    bytesOf: itemBytes,
  });
  return { rows, next: more ? cursorAt(rows.at(-1)!) : undefined };
}

/** What is asked of each hit `t` that is looked at: whether it fits, and perhaps a number to find with it. */
export interface Examination {
  fits: string;
  found?: string;
}

/** A hit that fits. */
export interface Place {
  item_no: number;
  score: number;
  rank: number;
  found: number | null;
}

interface Examined extends Omit<Place, 'rank'> {
  place: number;
  fits: boolean;
}

/**
 * Looks at hits in their order, step by step, until a page is full, all were seen, or enough were. One walk along the index
 * without a join, planned anew each time: a plan kept from when the table was small could be quadratic now.
 */
export async function examine(
  tx: TenantTx,
  jobId: string,
  task: JobTask,
  { filter, after, size, endedBy }: Pick<HitQuery, 'filter' | 'after' | 'size' | 'endedBy'>,
  ask: (param: (value: unknown) => string) => Examination,
): Promise<HitPage<Place>> {
  const { comparison, direction, start } = orderOf(task);
  const ranked = !leavesOutBetter(filter, task.plan.lowerIsBetter);
  const rows: Place[] = [];
  let at = after ?? start;
  let examined = 0;
  for (let most = Math.max(LEAST_STEP, 2 * size); examined < MOST_EXAMINED; most *= STEP_GROWTH) {
    const step = Math.min(most, MOST_EXAMINED - examined, (filter.maxRank ?? Infinity) - at[2]);
    if (step <= 0) return { rows, next: undefined };
    const params: unknown[] = [jobId, task.taskId, at[0], at[1], step];
    const param = (value: unknown): string => `$${params.push(value)}`;
    const { fits, found = 'NULL::int' } = ask(param);
    const bounds = boundsOf(filter, endedBy, param) + keptBound(task);
    const seen = await planned<Examined>(
      tx,
      `SELECT item_no, score, place, fits, CASE WHEN fits THEN found END AS found FROM (
          SELECT item_no, score, row_number() OVER w AS place, lead(1) OVER w IS NULL AS is_last, ${fits} AS fits, ${found} AS found
          FROM (
            SELECT item_no, score, status, molecule_id, molecular_weight, logp, tpsa, hbd, hba, rotatable_bonds
            FROM task_results
            WHERE job_id = $1 AND task_id = $2 AND ${IS_HIT} AND (score, item_no) ${comparison} ($3::float8, $4::int)${bounds}
            ORDER BY score ${direction}, item_no ${direction} LIMIT $5) t
          WINDOW w AS (ORDER BY score ${direction}, item_no ${direction})) e
        WHERE fits OR is_last ORDER BY place`,
      params,
    );
    const place = (one: Examined): HitCursor => [one.score, one.item_no, ranked ? at[2] + one.place : 0];
    const fitting = seen.filter((one) => one.fits).slice(0, size - rows.length);
    rows.push(...fitting.map((one) => ({ ...one, rank: place(one)[2] })));
    if (rows.length === size) return { rows, next: place(fitting.at(-1)!) };
    const last = seen.at(-1);
    if (last === undefined || last.place < step) return { rows, next: undefined };
    examined += step;
    at = place(last);
  }
  return { rows, next: at };
}
