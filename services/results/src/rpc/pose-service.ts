import type { ServiceImpl } from '@connectrpc/connect';
import type { PoseService } from '@mad/proto/results';
import { invalid, notFound, orgOf } from '@mad/rpc';
import type { TenantTx } from '@mad/tenancy';
import type { Context } from '../context.ts';
import { CONTENT_BYTES } from '../domain/content.ts';
import { sdfRecord } from '../domain/sdf.ts';
import { readStructure, readStructures } from '../objects/structures.ts';
import { requireJob } from '../runs/job-image.ts';
import { ITEM_COLUMNS, POSE_COLUMNS, poseMessage, type ItemRow, type PoseRow } from './convert.ts';
import { exportRow, readExportItems, readExportPage, type ExportedHit } from './hit-export.ts';
import { requireFilter, requireKnownRanks } from './filter.ts';
import type { HitCursor } from './hit-rows.ts';
import { scoringTask } from './job-tasks.ts';
import { sourceOf, type PoseSource } from './result-rows.ts';

/** Hits read at once for a file of poses. */
const PAGE = 200;
/** Structures read before what they make is sent. */
const STRUCTURES = 50;

/** The 3D structures of docked poses. */
export function poseService(context: Context): ServiceImpl<typeof PoseService> {
  const { tenants, objects } = context;

  return {
    async getPose({ jobId, itemNo, taskId, replicate, poseRank }, ctx) {
      if ((replicate === 0) !== (poseRank === 0)) {
        throw invalid(replicate === 0 ? 'replicate' : 'pose_rank', 'give both replicate and pose_rank, or neither');
      }
      const orgId = orgOf(ctx);
      const { row, pose } = await tenants.read(orgId, async (tx) => {
        const job = await requireJob(tx, jobId);
        const task = scoringTask(job, taskId);
        const source = await sourceOf(tx, job, task.taskId, itemNo);
        const [item] = await tx.query<ItemRow>(
          `SELECT ${ITEM_COLUMNS} FROM task_results WHERE job_id = $1 AND task_id = $2 AND item_no = $3`,
          [jobId, task.taskId, itemNo],
        );
        const found = await readPose(tx, source, replicate, poseRank);
        if (found === undefined) throw notFound('pose', `${jobId}/${itemNo}/${replicate}/${poseRank}`);
        return { row: exportRow(item!, task.plan.scoreUnits, found), pose: found };
      });
      const molBlock = await readStructure(objects, orgId, pose);
      if (molBlock === undefined) {
        throw notFound('structure', `${jobId}/${itemNo}/${pose.replicate}/${pose.pose_rank}`);
      }
      const { molecule_id: moleculeId, molecule_name: moleculeName, smiles } = row;
      return { pose: poseMessage(pose), moleculeId, moleculeName, smiles, sdf: sdfRecord(row, molBlock) };
    },

    async *downloadPoses({ jobId, taskId, filter: text, bestPerMolecule, itemNo: itemNos }, ctx) {
      const orgId = orgOf(ctx);
      if (itemNos.length > 0 && (text !== '' || bestPerMolecule)) {
        throw invalid('item_no', 'goes without filter and best_per_molecule');
      }
      const filter = requireFilter(text);
      const { signal } = ctx;
      let poses = 0;
      let without = 0;
      const recordsOf = async (hits: readonly ExportedHit[]): Promise<Buffer> => {
        const places = hits.map(({ pose }) => pose);
        const structures = await readStructures(objects, orgId, places);
        const records = hits.flatMap(({ row }, index) => {
          const structure = structures[index];
          return structure === undefined ? [] : [sdfRecord(row, structure)];
        });
        poses += records.length;
        without += hits.length - records.length;
        return Buffer.from(records.join(''));
      };
      const task = await tenants.read(orgId, async (tx) => scoringTask(await requireJob(tx, jobId), taskId));
      requireKnownRanks(filter, task.plan.lowerIsBetter);
      const readPage = (tx: TenantTx, after: HitCursor | undefined) =>
        itemNos.length > 0
          ? readExportItems(tx, jobId, task, { itemNos, after, size: PAGE })
          : readExportPage(tx, jobId, task, { filter, bestPerMolecule, after, size: PAGE });
      // A connection is held for the rows of a page only, never while the caller reads.
      let after: HitCursor | undefined;
      do {
        const from = after;
        const page = await tenants.read(orgId, (tx) => readPage(tx, from), { signal });
        // Of a page without hits too: its counts are the sign that the search goes on.
        for (let start = 0; start === 0 || start < page.hits.length; start += STRUCTURES) {
          const records = await recordsOf(page.hits.slice(start, start + STRUCTURES));
          for (const content of messagesOf(records)) {
            yield { content, poses: BigInt(poses), withoutStructure: BigInt(without) };
          }
        }
        after = page.next;
      } while (after !== undefined);
    },
  };
}

/** A piece of a file in parts that fit into a message; one at least. Where it is cut does not matter. */
function* messagesOf(piece: Buffer): Generator<Buffer> {
  for (let start = 0; start === 0 || start < piece.length; start += CONTENT_BYTES) {
    yield piece.subarray(start, start + CONTENT_BYTES);
  }
}

/** A pose by its place; with 0 and 0 the best one. Only of a finished item. */
async function readPose(
  tx: TenantTx,
  source: PoseSource,
  replicate: number,
  poseRank: number,
): Promise<PoseRow | undefined> {
  const [pose] = await tx.query<PoseRow>(
    `SELECT ${POSE_COLUMNS} FROM docking_results d JOIN task_results t USING (job_id, task_id, item_no)
      WHERE d.job_id = $1 AND d.task_id = $2 AND d.item_no = $3 AND t.status = 'scored'
        AND ($4 = 0 OR (d.replicate = $4 AND d.pose_rank = $5))
      ORDER BY d.score, d.replicate, d.pose_rank LIMIT 1`,
    [source.jobId, source.taskId, source.itemNo, replicate, poseRank],
  );
  return pose;
}
