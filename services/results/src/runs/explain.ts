import { hash } from 'node:crypto';
import { fromJson, type JsonValue } from '@bufbuild/protobuf';
import { TaskPlanSchema, type TaskPlan } from '@mad/proto/results';
import type { TenantTx } from '@mad/tenancy';
import { cacheKey, missOf, type CacheMiss, type Demand } from '../domain/cache-entry.ts';
import { signatureText } from '../domain/input-signature.ts';
import { nearest, type Difference } from '../domain/signature-difference.ts';
import { ENTRY_COLUMNS, entryOf, lookUp, type EntryRow } from './cache.ts';
import { signatureTextOf, signedPlanOf } from './plan.ts';

/** The columns that say where an entry's result comes from. */
export interface SourceRow extends EntryRow {
  input_signature: string;
  canonical_job_id: string;
  canonical_task_id: string;
  canonical_item_no: number;
  engine: string;
}

/** The columns of a SourceRow, of an entry `c`. */
export const SOURCE_COLUMNS = `${ENTRY_COLUMNS}, c.input_signature, c.canonical_job_id, c.canonical_task_id,
  c.canonical_item_no, c.engine`;

/** What a look-up says of one molecule in one task. */
export interface Explanation {
  plan: TaskPlan;
  smiles: string;
  signature: string;
  /** Undefined for a hit. */
  miss: CacheMiss | undefined;
  /** What is kept for this input, usable or not. */
  source: SourceRow | undefined;
  nearest: { source: SourceRow; differences: Difference[] } | undefined;
}

/** Results of a molecule compared at most: the newest. */
const MOST_COMPARED = 100;

/**
 * Looks one molecule up as a job with this demand would and says what was found; where no result is kept for the input
 * (or `missed` says that none was at the time), in what the nearest one of the molecule differs, of those computed before
 * `before`. Changes nothing.
 */
export async function explain(
  tx: TenantTx,
  {
    plan,
    smiles,
    demand,
    missed,
    before,
  }: { plan: TaskPlan; smiles: string; demand: Demand; missed?: CacheMiss | null; before?: Date },
): Promise<Explanation> {
  const signed = signedPlanOf(plan);
  const signature = hash('sha256', signatureText(signed)(smiles));
  const [source] = await tx.query<SourceRow>(`SELECT ${SOURCE_COLUMNS} FROM result_cache c WHERE c.cache_key = $1`, [
    cacheKey(plan.task, signature),
  ]);
  const miss = missOf(source && entryOf(source), demand, Date.now());
  const explained: Explanation = { plan, smiles, signature, miss, source, nearest: undefined };
  if ((missed ?? miss) !== 'never_computed') return explained;
  const rows = await tx.query<SourceRow & { plan: JsonValue }>(
    `SELECT ${SOURCE_COLUMNS}, k.plan FROM result_cache c
        JOIN job_tasks k ON k.job_id = c.canonical_job_id AND k.task_id = c.canonical_task_id
      WHERE c.smiles = $1 AND c.task = $2 AND c.input_signature <> $3 AND c.created_at < coalesce($4, 'infinity'::timestamptz)
      ORDER BY c.created_at DESC LIMIT ${MOST_COMPARED}`,
    [smiles, plan.task, signature, before ?? null],
  );
  const candidates = rows.map((row) => ({ row, plan: signedPlanOf(fromJson(TaskPlanSchema, row.plan)) }));
  const found = nearest(candidates, signed);
  if (found !== undefined) explained.nearest = { source: found.candidate.row, differences: found.differences };
  return explained;
}

/** How molecules would fare in one task. */
export interface Forecast {
  plan: TaskPlan;
  hits: number;
  misses: Map<CacheMiss, number>;
  /** The first molecules that miss, as many as were asked for. */
  missed: string[];
}

/** Looks molecules up as a job with this demand would. Changes nothing. */
export async function forecast(
  tx: TenantTx,
  { plan, smiles, demand, show }: { plan: TaskPlan; smiles: readonly string[]; demand: Demand; show: number },
): Promise<Forecast> {
  const textOf = signatureTextOf(plan);
  const signatures = smiles.map((one) => hash('sha256', textOf(one)));
  const found = await lookUp(tx, plan.task, signatures, demand);
  const result: Forecast = { plan, hits: 0, misses: new Map(), missed: [] };
  for (const [index, signature] of signatures.entries()) {
    const looked = found.get(signature);
    if (looked?.hit !== undefined) {
      result.hits += 1;
      continue;
    }
    const miss = looked?.miss ?? 'never_computed';
    result.misses.set(miss, (result.misses.get(miss) ?? 0) + 1);
    if (result.missed.length < show) result.missed.push(smiles[index]!);
  }
  return result;
}
