import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { timestampDate } from '@bufbuild/protobuf/wkt';
import { uuidv7, type Env } from '@mad/process';
import {
  ExportFormat,
  ExportSchema,
  ExportService,
  ExportState,
  GetExportResponseSchema,
  type Export,
} from '@mad/proto/results';
import { action } from '../command.ts';
import { downloadExport, partContent, watchExport, wholeManifest } from '../export-download.ts';
import { verifyFolder, verifyParts, type Damage } from '../export-manifest.ts';
import { CommandFailure, EXIT } from '../failure.ts';
import { jsonOf, table, type Output } from '../output.ts';
import { allPages } from '../pages.ts';
import { progressBar } from '../progress.ts';
import { asMember } from '../session.ts';

interface CreateOptions {
  format: string;
  task: string;
  filter: string;
  bestPerMolecule?: boolean;
  watch?: boolean;
  out?: string;
}

const FORMATS: Readonly<Record<string, ExportFormat>> = {
  csv: ExportFormat.CSV,
  sdf: ExportFormat.SDF,
  parquet: ExportFormat.PARQUET,
  jsonl: ExportFormat.JSON_LINES,
};

/** export create, list, get, watch, download, verify, delete. */
export function exportCommands(mad: Command, env: Env): void {
  const exports = mad.command('export').description('hits of jobs as files: CSV, SDF, Parquet, JSON lines');
  exports
    .command('create <job>')
    .description("begin an export of a job's hits as they are now")
    .option('--format <format>', 'csv, sdf, parquet or jsonl', 'csv')
    .option('--filter <text>', 'only hits of which this holds, e.g. "score <= -7 AND rank <= 1000"', '')
    .option('--best-per-molecule', 'only the first item of each molecule')
    .option('--task <id>', "the task; default: the job's last that gives scores", '')
    .option('--watch', 'show progress until it is whole')
    .option('--out <folder>', 'wait until it is whole and bring it here')
    .action(
      action<CreateOptions>(env, async ({ settings, output, options }, jobId) => {
        const format = Object.hasOwn(FORMATS, options.format) ? FORMATS[options.format] : undefined;
        if (format === undefined) throw new CommandFailure('--format: csv, sdf, parquet or jsonl', EXIT.usage);
        const signed = await asMember(settings);
        const { filter, task: taskId, bestPerMolecule = false, out } = options;
        const request = { orgId: signed.orgId, requestId: uuidv7(), jobId, format, filter, taskId, bestPerMolecule };
        const { export: begun } = await signed.api.client(ExportService).createExport(request);
        output.note(`export ${begun!.exportId}`);
        if (!options.watch && out === undefined) return output.answer(jsonOf(ExportSchema, begun), summary(begun!));
        const answer = await watchExport(signed, output, { jobId, exportId: begun!.exportId });
        if (out !== undefined) await downloadExport(signed, output, answer, out);
        answerExport(output, answer.export!, out);
      }),
    );
  exports
    .command('list <job>')
    .description("a job's exports, newest first")
    .option('--limit <n>', 'at most this many', Number, 50)
    .action(
      action<{ limit: number }>(env, async ({ settings, output, options }, jobId) => {
        const { api, orgId } = await asMember(settings);
        const found = await allPages(
          (pageToken) => api.client(ExportService).listExports({ orgId, jobId, pageToken }),
          (page) => page.exports,
          options.limit,
        );
        output.answer(
          found.map((one) => jsonOf(ExportSchema, one)),
          table(['export', 'format', 'state', 'hits', 'bytes', 'begun', 'filter'], found.map(row)),
        );
      }),
    );
  exports
    .command('get <job> <export>')
    .description('one export, its files and its manifest')
    .action(
      action(env, async ({ settings, output }, jobId, exportId) => {
        const { api, orgId } = await asMember(settings);
        const answer = await api.client(ExportService).getExport({ orgId, jobId, exportId });
        const parts = answer.export!.parts.map((one) => [
          one.file,
          Number(one.rows),
          Number(one.sizeBytes),
          one.sha256,
        ]);
        const files = table(['file', 'hits', 'bytes', 'sha256'], parts);
        output.answer(jsonOf(GetExportResponseSchema, answer), `${summary(answer.export!)}\n\n${files}`);
      }),
    );
  exports
    .command('watch <job> <export>')
    .description('show progress until it has ended')
    .action(
      action(env, async ({ settings, output }, jobId, exportId) => {
        const signed = await asMember(settings);
        const answer = await watchExport(signed, output, { jobId, exportId });
        answerExport(output, answer.export!);
      }),
    );
  exports
    .command('download <job> <export>')
    .description('bring its files and its manifest into a folder; files that are there and whole are left')
    .requiredOption('--out <folder>', 'where to')
    .action(
      action<{ out: string }>(env, async ({ settings, output, options }, jobId, exportId) => {
        const signed = await asMember(settings);
        const answer = await watchExport(signed, output, { jobId, exportId });
        await downloadExport(signed, output, answer, options.out);
        answerExport(output, answer.export!, options.out);
      }),
    );
  exports
    .command('verify <folder-or-export>')
    .description('compare every file with its sha256 and its rows in the manifest: of a folder, or at the service')
    .option('--job <job>', 'whose export it is, when it is not a folder', '')
    .action(
      action<{ job: string }>(env, async ({ settings, output, options }, what) => {
        if (existsSync(what)) {
          return answerDamages(output, what, await verifyFolder(what));
        }
        if (options.job === '')
          throw new CommandFailure(`${what} is no folder; of an export say --job too`, EXIT.usage);
        const signed = await asMember(settings);
        const name = { jobId: options.job, exportId: what };
        const manifest = wholeManifest(
          await signed.api.client(ExportService).getExport({ orgId: signed.orgId, ...name }),
        );
        const bar = progressBar(output, 'parts', manifest.parts.length);
        try {
          const open = (part: { file: string }) => partContent(signed, name, partNoOf(part.file));
          answerDamages(output, what, await verifyParts(manifest, open, (done) => bar.update(done)));
        } finally {
          bar.stop();
        }
      }),
    );
  exports
    .command('delete <job> <export>')
    .description('remove an export and its files, also one that is being written')
    .action(
      action(env, async ({ settings, output }, jobId, exportId) => {
        const { api, orgId } = await asMember(settings);
        await api.client(ExportService).deleteExport({ orgId, jobId, exportId });
        output.answer({ ok: true, export_id: exportId }, `${exportId} is removed`);
      }),
    );
}

const partNoOf = (file: string): number => Number(/\d+/.exec(file)![0]);
const stateName = ({ state }: Export): string => ExportState[state].toLowerCase();
const formatName = ({ format }: Export): string => Object.keys(FORMATS).find((name) => FORMATS[name] === format) ?? '';

function row(one: Export): (string | number)[] {
  const begun = one.createTime === undefined ? '' : timestampDate(one.createTime).toISOString();
  return [one.exportId, formatName(one), stateName(one), Number(one.rows), Number(one.sizeBytes), begun, one.filter];
}

function summary(one: Export): string {
  const { exportId, rows, sizeBytes, parts, error } = one;
  const size = `${rows} hits in ${parts.length} ${formatName(one)} files, ${sizeBytes} bytes`;
  return `${exportId} ${stateName(one)}: ${error === '' ? size : error}`;
}

function answerExport(output: Output, one: Export, folder?: string): void {
  const where = folder === undefined ? '' : `, in ${folder}`;
  output.answer(
    { ...(jsonOf(ExportSchema, one) as object), ...(folder === undefined ? {} : { folder }) },
    `${summary(one)}${where}`,
  );
  if (one.state === ExportState.FAILED) process.exitCode = EXIT.failed;
}

function answerDamages(output: Output, what: string, damages: Damage[]): void {
  const text = damages.map(({ file, problem }) => `${file} ${problem}`).join('\n');
  output.answer({ ok: damages.length === 0, damages }, damages.length === 0 ? `${what} is whole` : text);
  if (damages.length > 0) process.exitCode = EXIT.failed;
}
