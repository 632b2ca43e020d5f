import type { CallOptions } from '@connectrpc/connect';
import type { CacheForecast, CacheLookUp, CacheMiss, PreviewJobRequest } from '@mad/proto/catalog';
import { create } from '@bufbuild/protobuf';
import { TaskPlanSchema } from '@mad/proto/results';
import { invalid, notFound } from '@mad/rpc';
import type { CatalogContext } from '../context.ts';
import { resolveVersion } from './create.ts';
import { RESULTS_MS } from './tenant-job.ts';

/** Molecules looked up with one question. */
const BATCH = 5_000;

/** What the molecules of a job would find. */
export interface JobPreview {
  molecules: number;
  tasks: { taskId: string; task: string; hits: bigint; misses: Map<CacheMiss, bigint> }[];
  explained: CacheLookUp[];
}

/**
 * Plans the job as its submission would and has results look its molecules up, batch by batch, with no transaction open
 * across the question. A library need not be sealed. Throws what resolving the job throws; NOT_FOUND for a library or
 * molecule the organization does not have.
 */
export async function previewJob(
  context: CatalogContext,
  orgId: string,
  request: PreviewJobRequest,
  { signal }: Pick<CallOptions, 'signal'>,
): Promise<JobPreview> {
  const { planned } = await resolveVersion(context, orgId, request);
  const tasks = planned.tasks.map((task) => create(TaskPlanSchema, task));
  const { minConfidence, maxAgeS } = request;
  const preview: JobPreview = {
    molecules: 0,
    tasks: tasks.map(({ taskId, task }) => ({ taskId, task, hits: 0n, misses: new Map() })),
    explained: [],
  };
  for await (const smiles of moleculesOf(context, orgId, request, signal)) {
    const explain = request.explain - preview.explained.length;
    const question = { orgId, tasks, smiles, minConfidence, maxAgeS, explain };
    const answer = await context.cache.previewLookUps(question, { timeoutMs: RESULTS_MS, signal });
    preview.molecules += smiles.length;
    preview.explained.push(...answer.explained);
    for (const [index, forecast] of answer.tasks.entries()) add(preview.tasks[index]!, forecast);
  }
  return preview;
}

function add(sum: JobPreview['tasks'][number], { hits, misses }: CacheForecast): void {
  sum.hits += hits;
  for (const { miss, items } of misses) sum.misses.set(miss, (sum.misses.get(miss) ?? 0n) + items);
}

async function* moleculesOf(
  { database }: CatalogContext,
  orgId: string,
  { moleculeSetId, moleculeIds }: PreviewJobRequest,
  signal: AbortSignal | undefined,
): AsyncGenerator<string[]> {
  const options = { readOnly: true, signal };
  if (moleculeSetId === '') {
    for (let start = 0; start < moleculeIds.length; start += BATCH) {
      const ids = moleculeIds.slice(start, start + BATCH);
      const rows = await database.inOrg(
        orgId,
        (tx) =>
          tx.query<{ id: string; canonical_smiles: string | null }>(
            `SELECT given.id, m.canonical_smiles FROM unnest($2::uuid[]) AS given (id)
             LEFT JOIN catalog.molecules m ON m.org_id = $1 AND m.molecule_id = given.id`,
            [orgId, ids],
          ),
        options,
      );
      yield rows.map(({ id, canonical_smiles: smiles }) => {
        if (smiles === null) throw notFound('molecule', id);
        return smiles;
      });
    }
    return;
  }
  const size = await database.inOrg(
    orgId,
    async (tx) => {
      const [set] = await tx.query<{ size: number }>(
        'SELECT size FROM catalog.molecule_sets WHERE org_id = $1 AND molecule_set_id = $2',
        [orgId, moleculeSetId],
      );
      return set?.size;
    },
    options,
  );
  if (size === undefined) throw notFound('molecule set', moleculeSetId);
  if (size === 0) throw invalid('molecule_set_id', 'the set is empty');
  for (let after = 0; ;) {
    const rows = await database.inOrg(
      orgId,
      (tx) =>
        tx.query<{ item_no: number; canonical_smiles: string }>(
          `SELECT m.item_no, c.canonical_smiles FROM catalog.molecule_set_members m
           JOIN catalog.molecules c ON c.org_id = m.org_id AND c.molecule_id = m.molecule_id
           WHERE m.org_id = $1 AND m.molecule_set_id = $2 AND m.item_no > $3 ORDER BY m.item_no LIMIT ${BATCH}`,
          [orgId, moleculeSetId, after],
        ),
      options,
    );
    if (rows.length > 0) yield rows.map((row) => row.canonical_smiles);
    if (rows.length < BATCH) return;
    after = rows.at(-1)!.item_no;
  }
}
