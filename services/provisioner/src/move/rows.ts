import { createHash } from 'node:crypto';
import type { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ArchivedTable, ArchiveManifest, ArchivePlan, TableTotals } from '../backups/archive-format.ts';
import type { TableOptions } from '../backups/archive-reader.ts';
import type { ArchiveSource } from '../backups/archive-writer.ts';
import type { RowsToLoad } from '../backups/load.ts';

/** One moment of a database, read straight into another: what an archive of it would give back, without the archive. */
export class RowsOfDatabase implements RowsToLoad {
  readonly plan: ArchivePlan;
  readonly #source: ArchiveSource;
  readonly #totals: TableTotals[] = [];
  #rawBytes = 0;

  constructor(source: ArchiveSource) {
    this.plan = source.plan;
    this.#source = source;
  }

  async table(into: Writable, { onProgress, signal }: TableOptions = {}): Promise<TableTotals> {
    const planned = this.plan.tables[this.#totals.length];
    if (planned === undefined) throw new RangeError('the plan has no further table');
    const content = createHash('sha256');
    const before = this.#rawBytes;
    const rows = this.#source.rows(planned);
    let rawBytes = 0;
    await pipeline(
      rows,
      async function* (chunks: AsyncIterable<Buffer>) {
        for await (const chunk of chunks) {
          content.update(chunk);
          rawBytes += chunk.length;
          onProgress?.(before + rawBytes);
          yield chunk;
        }
      },
      into,
      { signal },
    );
    this.#rawBytes += rawBytes;
    const { schema, name } = planned;
    const totals = { schema, name, rows: rows.rowCount, raw_bytes: rawBytes, content_sha256: content.digest('hex') };
    this.#totals.push(totals);
    return totals;
  }

  async finish(): Promise<ArchiveManifest> {
    const tables = this.plan.tables.map((table, index) => {
      const archived: ArchivedTable = { ...this.#totals[index]!, size_bytes: 0, part_sha256: '' };
      return { ...table, ...archived };
    });
    return { ...this.plan, tables, sequences: await this.#source.sequences() };
  }
}
