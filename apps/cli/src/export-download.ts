import { createReadStream } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sleep } from '@mad/process';
import { ExportService, ExportState, type Export, type GetExportResponse } from '@mad/proto/results';
import { damageOf, MANIFEST, manifestFrom, type ExportManifest, type PartEntry } from './export-manifest.ts';
import { CommandFailure, EXIT } from './failure.ts';
import type { Output } from './output.ts';
import { progressBar } from './progress.ts';
import { saveFile } from './save-file.ts';
import type { Signed } from './session.ts';

const LOOK_MS = 500;

/** Which export. */
export interface ExportName {
  jobId: string;
  exportId: string;
}

/** Shows an export's progress until it has ended. Asking for it also has one written whose process died. */
export async function watchExport(
  { api, orgId }: Signed,
  output: Output,
  name: ExportName,
): Promise<GetExportResponse> {
  let bar: ReturnType<typeof progressBar> | undefined;
  try {
    for (;;) {
      const answer = await api.client(ExportService).getExport({ orgId, ...name });
      const { state, rows, expectedRows, parts } = answer.export!;
      bar ??= progressBar(output, 'hits', Number(expectedRows));
      bar.update(Number(rows), `${parts.length} parts`, Math.max(Number(rows), Number(expectedRows)));
      if (state !== ExportState.RUNNING) return answer;
      await sleep(LOOK_MS);
    }
  } finally {
    bar?.stop();
  }
}

/** A part's content as it comes. */
export async function* partContent(
  { api, orgId }: Signed,
  name: ExportName,
  partNo: number,
): AsyncGenerator<Uint8Array> {
  for await (const { content } of api.client(ExportService).downloadExport({ orgId, ...name, partNo })) yield content;
}

/** The manifest of an export that is whole. Fails where it is not. */
export function wholeManifest({ export: found, manifest }: GetExportResponse): ExportManifest {
  if (found!.state === ExportState.FAILED) throw new CommandFailure(`the export failed: ${found!.error}`, EXIT.failed);
  if (manifest === undefined) throw new CommandFailure('the export is not whole yet: watch it first', EXIT.refused);
  return manifestFrom(manifest, 'the manifest');
}

/**
 * Brings an export's files and its manifest into a folder and checks each as it comes. Files that are there already and
 * whole are left: a download that was cut goes on. Returns how many files came.
 */
export async function downloadExport(
  signed: Signed,
  output: Output,
  answer: GetExportResponse,
  folder: string,
): Promise<number> {
  const manifest = wholeManifest(answer);
  const name = nameOf(answer.export!);
  await mkdir(folder, { recursive: true });
  const bar = progressBar(output, 'parts', manifest.parts.length);
  let came = 0;
  try {
    for (const [index, part] of manifest.parts.entries()) {
      const path = join(folder, part.file);
      if (!(await isThere(manifest.format, part, path))) {
        await saveFile(path, partContent(signed, name, index + 1));
        came += 1;
        const damage = await damageOf(manifest.format, part, createReadStream(path));
        if (damage !== undefined) throw new CommandFailure(`${path} ${damage.problem}`, EXIT.failed);
      }
      bar.update(index + 1);
    }
  } finally {
    bar.stop();
  }
  await writeFile(join(folder, MANIFEST), `${JSON.stringify(answer.manifest, undefined, 2)}\n`);
  return came;
}

const nameOf = ({ jobId, exportId }: Export): ExportName => ({ jobId, exportId });

async function isThere(format: string, part: PartEntry, path: string): Promise<boolean> {
  const found = await damageOf(format, part, createReadStream(path)).catch(() => 'missing');
  return found === undefined;
}
