import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import type { JsonObject, JsonValue, MessageInitShape } from '@bufbuild/protobuf';
import type { ServiceImpl } from '@connectrpc/connect';
import { ExportFormat, ExportState, type ExportSchema, type ExportService } from '@mad/proto/results';
import { invalid, nextPageToken, notFound, orgOf, pageOf, userOf } from '@mad/rpc';
import type { TenantTx } from '@mad/tenancy';
import type { Context } from '../context.ts';
import type { ExportEntityRow, ExportPartRow } from '../db/entities/export.ts';
import { partFile, type ExportFormatName, type ExportStateName } from '../domain/export-format.ts';
import { EXPORT_COLUMNS_SQL, isAbandoned, readParts, requireExport } from '../exports/export-rows.ts';
import { readFailure } from '../objects/lost-object.ts';
import { dropObjectsOfOwner, objectKey } from '../objects/object-notes.ts';
import { appendAudit } from '../runs/audit.ts';
import { requireJob } from '../runs/job-image.ts';
import { refuseReuse } from '../runs/request-reused.ts';
import { holdOffRetention } from '../runs/retention-lock.ts';
import { isEntryCursor, type EntryCursor } from './cache-rows.ts';
import { requireFilter, requireKnownRanks } from './filter.ts';
import { scoringTask } from './job-tasks.ts';

const FORMATS: Record<ExportFormatName, ExportFormat> = {
  csv: ExportFormat.CSV,
  sdf: ExportFormat.SDF,
  parquet: ExportFormat.PARQUET,
  jsonl: ExportFormat.JSON_LINES,
};
const STATES: Record<ExportStateName, ExportState> = {
  running: ExportState.RUNNING,
  completed: ExportState.COMPLETED,
  failed: ExportState.FAILED,
};
const NO_ID = '00000000-0000-0000-0000-000000000000';
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Hits of a job as files. */
export function exportService(context: Context): ServiceImpl<typeof ExportService> {
  const { tenants, objects, exports, sweeper, exportPartRows } = context;

  /** Whoever asks for an export that nobody writes has it written. */
  function goOn(orgId: string, rows: readonly ExportEntityRow[]): void {
    for (const row of rows) if (isAbandoned(row, Date.now())) exports.soon(orgId, row.export_id);
  }

  return {
    async createExport(request, ctx) {
      const { orgId, userId } = userOf(ctx);
      const { requestId, jobId, bestPerMolecule } = request;
      const filter = requireFilter(request.filter);
      const format = formatOf(request.format);
      const row = await tenants.transact(orgId, async (tx) => {
        await holdOffRetention(tx);
        const job = await requireJob(tx, jobId);
        const task = scoringTask(job, request.taskId);
        if (task.plan.scoreUnits === '') throw invalid('task_id', `${task.taskId} gives no scores, so it has no hits`);
        requireKnownRanks(filter, task.plan.lowerIsBetter);
        if (format === 'sdf' && task.plan.scoreUnits !== 'kcal/mol') {
          throw invalid(
            'format',
            `SD files hold docked poses, and ${task.taskId} does not dock: take csv, parquet or jsonl`,
          );
        }
        const isWhole = request.filter.trim() === '' && !bestPerMolecule;
        const expected = isWhole ? task.counters.scored + task.counters.cached : 0;
        const made = await tx.execute(
          `INSERT INTO exports (export_id, job_id, task_id, format, filter, best_per_molecule, snapshot_seq, part_rows,
              expected_rows, created_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (export_id) DO NOTHING`,
          [
            requestId,
            jobId,
            task.taskId,
            format,
            request.filter,
            bestPerMolecule,
            job.row.event_seq,
            exportPartRows,
            expected,
            userId,
          ],
        );
        if (made === 0) return earlier(tx, request, { format, taskId: task.taskId });
        const metadata = { export_id: requestId, format, filter: request.filter };
        await appendAudit(tx, { userId, action: 'export.create', jobId, outcome: 'ok', metadata });
        return requireExport(tx, jobId, requestId);
      });
      goOn(orgId, [row]);
      return { export: exportMessage(row) };
    },

    async getExport({ jobId, exportId }, ctx) {
      const orgId = orgOf(ctx);
      const { row, parts } = await tenants.read(orgId, async (tx) => {
        const found = await requireExport(tx, jobId, exportId);
        return { row: found, parts: await readParts(tx, exportId) };
      });
      goOn(orgId, [row]);
      return { export: exportMessage(row, parts), manifest: (row.manifest as JsonObject | null) ?? undefined };
    },

    async listExports(request, ctx) {
      const orgId = orgOf(ctx);
      const { jobId } = request;
      const query = ['exports', orgId, jobId];
      const isCursor = (value: JsonValue): boolean => isEntryCursor(value) && UUID.test((value as EntryCursor)[1]);
      const { size, cursor } = pageOf(request, { query, isCursor });
      const rows = await tenants.read(orgId, async (tx) => {
        await requireJob(tx, jobId);
        const [created, exportId] = (cursor as EntryCursor | undefined) ?? ['infinity', NO_ID];
        return tx.query<ExportEntityRow & { cursor: string }>(
          `SELECT ${EXPORT_COLUMNS_SQL}, to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS cursor
            FROM exports WHERE job_id = $1 AND (created_at, export_id) < ($2::timestamptz, $3::uuid)
            ORDER BY created_at DESC, export_id DESC LIMIT $4`,
          [jobId, created, exportId, size + 1],
        );
      });
      const shown = rows.slice(0, size);
      const last = shown.at(-1);
      goOn(orgId, shown);
      return {
        exports: shown.map((row) => exportMessage(row)),
        nextPageToken: rows.length > size ? nextPageToken(query, [last!.cursor, last!.export_id]) : '',
      };
    },

    async deleteExport({ jobId, exportId }, ctx) {
      const { orgId, userId } = userOf(ctx);
      await tenants.transact(orgId, async (tx) => {
        await requireExport(tx, jobId, exportId);
        // The row first: who writes finds its lease gone, and what it writes is given up with the rest.
        await tx.execute('DELETE FROM exports WHERE export_id = $1', [exportId]);
        await dropObjectsOfOwner(tx, exportId);
        const metadata = { export_id: exportId };
        await appendAudit(tx, { userId, action: 'export.delete', jobId, outcome: 'ok', metadata });
      });
      sweeper.soon(orgId);
      return {};
    },

    async *downloadExport({ jobId, exportId, partNo }, ctx) {
      const orgId = orgOf(ctx);
      const objectId = await tenants.read(orgId, async (tx) => {
        await requireExport(tx, jobId, exportId);
        const [part] = await tx.query<{ object_id: string }>(
          'SELECT object_id FROM export_parts WHERE export_id = $1 AND part_no = $2',
          [exportId, partNo],
        );
        if (part === undefined) throw notFound('part of the export', String(partNo));
        return part.object_id;
      });
      try {
        const content = await objects.stream(objectKey(orgId, { purpose: 'exports', ownerId: exportId, objectId }));
        for await (const piece of content) yield { content: piece as Uint8Array };
      } catch (error) {
        throw readFailure(`part ${partNo} of the export`, error);
      }
    },
  };
}

function formatOf(format: ExportFormat): ExportFormatName {
  return (Object.keys(FORMATS) as ExportFormatName[]).find((name) => FORMATS[name] === format)!;
}

/** The export that an earlier request of this id began. ALREADY_EXISTS when it asked for something else. */
async function earlier(
  tx: TenantTx,
  request: { requestId: string; jobId: string; filter: string; bestPerMolecule: boolean },
  { format, taskId }: { format: ExportFormatName; taskId: string },
): Promise<ExportEntityRow> {
  const [row] = await tx.query<ExportEntityRow>(`SELECT ${EXPORT_COLUMNS_SQL} FROM exports WHERE export_id = $1`, [
    request.requestId,
  ]);
  refuseReuse(request.requestId, {
    job_id: row!.job_id !== request.jobId,
    task_id: row!.task_id !== taskId,
    format: row!.format !== format,
    filter: row!.filter !== request.filter,
    best_per_molecule: row!.best_per_molecule !== request.bestPerMolecule,
  });
  return row!;
}

function exportMessage(
  row: ExportEntityRow,
  parts: readonly ExportPartRow[] = [],
): MessageInitShape<typeof ExportSchema> {
  return {
    exportId: row.export_id,
    jobId: row.job_id,
    taskId: row.task_id,
    format: FORMATS[row.format],
    filter: row.filter,
    bestPerMolecule: row.best_per_molecule,
    state: STATES[row.state],
    snapshotSeq: BigInt(row.snapshot_seq),
    rows: BigInt(row.rows_done),
    expectedRows: BigInt(row.expected_rows),
    sizeBytes: BigInt(row.size_bytes),
    parts: parts.map((part) => ({
      partNo: part.part_no,
      file: partFile(part.part_no, row.format),
      rows: BigInt(part.rows),
      sizeBytes: BigInt(part.size_bytes),
      sha256: part.sha256,
    })),
    error: row.error,
    createdBy: row.created_by,
    createTime: timestampFromDate(row.created_at),
    endTime: row.ended_at === null ? undefined : timestampFromDate(row.ended_at),
  };
}
