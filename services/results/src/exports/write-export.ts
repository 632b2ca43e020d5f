import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import type { ObjectStore } from '@mad/object-store';
import { SECOND_MS } from '@mad/process';
import type { Tenants } from '@mad/tenancy';
import type { ExportEntityRow } from '../db/entities/export.ts';
import { parseFilter, type HitFilter } from '../domain/hit-filter.ts';
import { keepObject, noteObject, objectKey } from '../objects/object-notes.ts';
import { readStructures } from '../objects/structures.ts';
import type { ObjectSweeper } from '../objects/sweep.ts';
import { readExportPage, type ExportedHit } from '../rpc/hit-export.ts';
import { taskNamed } from '../rpc/job-tasks.ts';
import { requireJob, type JobTask } from '../runs/job-image.ts';
import { addPart, endExport, ExportLost, readParts, renewLease } from './export-rows.ts';
import { filePieces, type WrittenHit } from './formats.ts';
import { manifestOf } from './manifest.ts';

/** Hits read at once: what of an export is in memory beside its writer. */
const PAGE = 1000;
/** The lease is renewed so often while a part is written. */
const RENEW_MS = 5 * SECOND_MS;

export interface ExportWriterDeps {
  tenants: Tenants;
  objects: ObjectStore;
  sweeper: ObjectSweeper;
}

/** Who writes: the lease's owner, until the signal says that the process ends. */
export interface ExportWriter {
  orgId: string;
  owner: string;
  signal: AbortSignal;
}

type Cursor = ExportEntityRow['next_hit'];

/**
 * Writes an export from where it stands to its end, part by part. Every part but the last has exactly `part_rows` hits, so
 * an export that was interrupted has the same files as one that was not. Throws ExportLost when it is another's.
 */
export async function writeExport(deps: ExportWriterDeps, writer: ExportWriter, row: ExportEntityRow): Promise<void> {
  const { tenants } = deps;
  const { orgId, owner, signal } = writer;
  const { job, task, parts } = await tenants.read(orgId, async (tx) => {
    const found = await requireJob(tx, row.job_id);
    return { job: found, task: taskNamed(found, row.task_id), parts: await readParts(tx, row.export_id) };
  });
  const filter = parseFilter(row.filter);
  // A part that is written while there is nowhere to go on was the last one.
  let partNo = parts.length + 1;
  let next: Cursor | 'end' = partNo > 1 && row.next_hit === null ? 'end' : row.next_hit;
  while (next !== 'end') {
    signal.throwIfAborted();
    next = await writePart(deps, writer, { row, task, filter, partNo, after: next });
    partNo += 1;
  }
  await tenants.transact(orgId, async (tx) => {
    const written = await readParts(tx, row.export_id);
    await endExport(tx, row.export_id, owner, { manifest: manifestOf(orgId, row, job, task, written) });
  });
}

interface PartToWrite {
  row: ExportEntityRow;
  task: JobTask;
  filter: HitFilter;
  partNo: number;
  after: Cursor;
}

/** Writes one part; returns where the next one goes on. */
async function writePart(deps: ExportWriterDeps, writer: ExportWriter, part: PartToWrite): Promise<Cursor | 'end'> {
  const { tenants, objects, sweeper } = deps;
  const { orgId, owner, signal } = writer;
  const { row, partNo } = part;
  const exportId = row.export_id;
  const hits = new PartHits(deps, writer, part);
  // A first look, so that no part is begun for hits that are not there; only the first may be empty.
  const first = await hits.page();
  if (first.length === 0 && partNo > 1) return 'end';
  const object = await tenants.transact(orgId, async (tx) => {
    await renewLease(tx, exportId, owner);
    return noteObject(tx, { purpose: 'exports', ownerId: exportId });
  });
  const hash = createHash('sha256');
  let size = 0;
  let renewedAt = performance.now();
  async function* pages(): AsyncGenerator<WrittenHit[]> {
    for (let page = first; page.length > 0; page = await hits.page()) {
      signal.throwIfAborted();
      if (performance.now() - renewedAt > RENEW_MS) {
        await tenants.transact(orgId, (tx) => renewLease(tx, exportId, owner, object.objectId));
        renewedAt = performance.now();
      }
      yield await withStructures(objects, orgId, row.format === 'sdf', page);
    }
  }
  async function* pieces(): AsyncGenerator<Uint8Array> {
    for await (const piece of filePieces(row.format, pages())) {
      hash.update(piece);
      size += piece.length;
      yield piece;
    }
  }
  const content = Readable.from(pieces(), { objectMode: false });
  let isPut = false;
  try {
    await objects.putStreamIfAbsent(objectKey(orgId, object), content);
    isPut = true;
    const written = {
      export_id: exportId,
      part_no: partNo,
      object_id: object.objectId,
      rows: hits.rows,
      size_bytes: size,
      sha256: hash.digest('hex'),
    };
    await tenants.transact(orgId, async (tx) => {
      if (!(await keepObject(tx, object.objectId, size))) {
        throw new ExportLost('the part took too long and was given up');
      }
      await addPart(tx, owner, written, hits.next ?? null);
    });
  } catch (error) {
    // What the store failed to say may yet come: that stays noted.
    if (isPut || content.errored !== null) await sweeper.giveUp(orgId, object);
    throw error;
  }
  return hits.next ?? 'end';
}

/** The hits of one part, page by page. A connection is held for the rows of a page only. */
class PartHits {
  rows = 0;
  /** Where the next part goes on; undefined when no hit is left. */
  next: NonNullable<Cursor> | undefined;
  readonly #deps: ExportWriterDeps;
  readonly #writer: ExportWriter;
  readonly #part: PartToWrite;
  #isOver = false;

  constructor(deps: ExportWriterDeps, writer: ExportWriter, part: PartToWrite) {
    this.#deps = deps;
    this.#writer = writer;
    this.#part = part;
    this.next = part.after ?? undefined;
  }

  /** The next hits; none when the part is full or no hit is left. */
  async page(): Promise<ExportedHit[]> {
    const { row, task, filter } = this.#part;
    const { orgId, signal } = this.#writer;
    while (!this.#isOver && this.rows < row.part_rows) {
      const query = {
        filter,
        bestPerMolecule: row.best_per_molecule,
        after: this.next,
        size: Math.min(PAGE, row.part_rows - this.rows),
        endedBy: row.snapshot_seq,
      };
      const page = await this.#deps.tenants.read(orgId, (tx) => readExportPage(tx, row.job_id, task, query), {
        signal,
      });
      this.rows += page.hits.length;
      this.next = page.next;
      this.#isOver = page.next === undefined;
      // A filtered page may be empty, and go on.
      if (page.hits.length > 0) return page.hits;
    }
    return [];
  }
}

async function withStructures(
  objects: ObjectStore,
  orgId: string,
  wanted: boolean,
  hits: readonly ExportedHit[],
): Promise<WrittenHit[]> {
  const places = hits.map(({ pose }) => pose);
  const structures = wanted ? await readStructures(objects, orgId, places) : [];
  return hits.map(({ row }, index) => ({ row, structure: structures[index] }));
}
