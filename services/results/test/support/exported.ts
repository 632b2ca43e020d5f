import { createHash } from 'node:crypto';
import { sleep, uuidv7 } from '@mad/process';
import { ExportState, type ExportFormat, type ExportService } from '@mad/proto/results';
import type { Client } from '@connectrpc/connect';
import { bearer, type Organization } from './world.ts';

/** What identifies an export of a job, and how it is asked for. */
export interface Asked {
  jobId: string;
  format: ExportFormat;
  taskId?: string;
  filter?: string;
  bestPerMolecule?: boolean;
}

/** Asks for an export; returns its id. */
export async function beginExport(
  exports: Client<typeof ExportService>,
  org: Organization,
  asked: Asked,
): Promise<string> {
  const request = { orgId: org.orgId, requestId: uuidv7(), ...asked };
  return (await exports.createExport(request, bearer(org.token))).export!.exportId;
}

/** Waits until an export has ended; returns how. */
export async function endedExport(
  exports: Client<typeof ExportService>,
  { orgId, token }: Organization,
  jobId: string,
  exportId: string,
) {
  for (let round = 0; round < 4000; round += 1) {
    const answer = await exports.getExport({ orgId, jobId, exportId }, bearer(token));
    if (answer.export!.state !== ExportState.RUNNING) return { ...answer, export: answer.export! };
    await sleep(25);
  }
  throw new Error(`export ${exportId} does not end`);
}

/** A part's content; throws where it is not what the export says of it. */
export async function partOf(
  exports: Client<typeof ExportService>,
  { orgId, token }: Organization,
  { jobId, exportId }: { jobId: string; exportId: string },
  part: { partNo: number; sha256: string; sizeBytes: bigint },
): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  const request = { orgId, jobId, exportId, partNo: part.partNo };
  for await (const { content } of exports.downloadExport(request, bearer(token))) pieces.push(content);
  const content = Buffer.concat(pieces);
  const digest = createHash('sha256').update(content).digest('hex');
  if (digest !== part.sha256 || BigInt(content.length) !== part.sizeBytes) throw new Error('the part is another one');
  return content;
}
