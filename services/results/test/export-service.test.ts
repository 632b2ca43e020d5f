import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Code, ConnectError } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { MINUTE_MS, sleep, uuidv7 } from '@mad/process';
import { ExportFormat, ExportState } from '@mad/proto/results';
import { userToken } from '@mad/testing';
import { readCsv } from './support/csv.ts';
import { EXPORT_READERS } from './support/export-readers.ts';
import { beginExport, endedExport, partOf, type Asked } from './support/exported.ts';
import { atomAt, readSdf } from './support/structures.ts';
import { newSmiles } from './support/smiles.ts';
import { bearer, docking, openWorld, rows, similarity, type Organization, type World } from './support/world.ts';

const PART_ROWS = 7;

let world: World;
let org: Organization;

beforeAll(async () => {
  world = await openWorld({ exportPartRows: PART_ROWS });
  org = await world.organization();
});

afterAll(() => world.close());

async function failureOf(call: Promise<unknown>): Promise<ConnectError> {
  return call.then(
    () => {
      throw new Error('it did not fail');
    },
    (error: unknown) => ConnectError.from(error),
  );
}

const properties = { molecularWeight: 46.07, logp: -0.1, tpsa: 20.23, hbd: 1, hba: 1, rotatableBonds: 0 };

/** A docking job whose item n scores n − 100 and has a pose at x = n; every third item is of another score's tie. */
async function dockedJob(names: string[], { chunkSize = 1000 } = {}) {
  const smiles = newSmiles(names.length);
  const molecules = names.map((name, index) => ({
    moleculeId: uuidv7(),
    smiles: smiles[index]!,
    name,
    ...(index % 2 === 0 ? { properties } : {}),
  }));
  const job = await world.materialize(org, { molecules, plans: [docking({ chunkSize })] });
  const executions = job.runnable.map(({ taskExecutionId }) => taskExecutionId);
  const run = (id: string) =>
    world.run(org, id, (_smiles, itemNo) => ({
      score: -20 + Math.floor(itemNo / 3) / 8,
      resultData: { said: names[itemNo - 1]!.replaceAll('\0', ''), itemNo },
      poses: [
        {
          replicate: 1,
          poseRank: 1,
          score: -20 + itemNo / 8,
          rawScore: -1.5,
          rmsdLb: 0,
          rmsdUb: 0,
          molBlock: atomAt(itemNo),
        },
      ],
    }));
  return { jobId: job.jobId, molecules, executions, run };
}

async function finishedJob(names: string[]) {
  const job = await dockedJob(names);
  for (const id of job.executions) await job.run(id);
  return job;
}

async function exported(asked: Asked) {
  const exportId = await beginExport(world.exports, org, asked);
  const ended = await endedExport(world.exports, org, asked.jobId, exportId);
  expect(ended.export).toMatchObject({ state: ExportState.COMPLETED, error: '' });
  const contents: Buffer[] = [];
  for (const part of ended.export.parts) {
    contents.push(await partOf(world.exports, org, { jobId: asked.jobId, exportId }, part));
  }
  return { exportId, contents, ...ended };
}

describe('every hit is taken away as it is', () => {
  test.each(EXPORT_READERS)(
    '%s gives back wild names and texts, numbers exactly, best first',
    async (_name, format, read) => {
      const wild = fc.oneof(
        fc.string({ unit: 'binary', maxLength: 60 }),
        fc.string({
          unit: fc.constantFrom(',', '"', '\n', '\r', ' ', '$', '>', '\\', 'é', '😀', '\u2028', '\t'),
          maxLength: 20,
        }),
        fc.constantFrom('', ' ', '$$$$', '> <score>', '"', '\r\n', 'M  END', '\\u0020', '=1+1', 'β-Carotin; "E160a"'),
      );
      // Postgres keeps no NUL and no half characters; catalog would have refused them.
      const name = wild.map((text) => text.replaceAll('\0', '').toWellFormed());
      await fc.assert(
        fc.asyncProperty(fc.array(name, { minLength: 1, maxLength: 18 }), async (names) => {
          const { jobId, molecules } = await finishedJob(names);
          const { contents, export: whole } = await exported({ jobId, format });
          const read_ = (await Promise.all(contents.map(async (one) => read(one)))).flat();
          const { hits } = await world.jobRuns.listHits(
            { orgId: org.orgId, jobId, pageSize: 1000, includeBestPose: true },
            bearer(org.token),
          );
          expect(read_.map((row) => Number(row['item_no']))).toEqual(hits.map(({ itemNo }) => itemNo));
          for (const [index, hit] of hits.entries()) {
            const row = read_[index]!;
            const molecule = molecules[hit.itemNo - 1]!;
            expect(row).toMatchObject({
              molecule_name: molecule.name,
              molecule_id: molecule.moleculeId,
              smiles: molecule.smiles,
              source: 'fresh',
              score_units: 'kcal/mol',
              input_signature: hit.inputSignature,
            });
            expect(JSON.parse(row['result_data'] as string)).toEqual({ said: molecule.name, itemNo: hit.itemNo });
            expect([row['rank'], row['score'], row['pose_score'], row['pose_raw_score']].map(Number)).toEqual([
              hit.rank,
              hit.score,
              hit.bestPose!.score,
              -1.5,
            ]);
            expect(row['logp'] ?? undefined).toEqual(molecule.properties === undefined ? undefined : expect.anything());
            if (molecule.properties !== undefined) expect(Number(row['logp'])).toBe(-0.1);
          }
          expect(whole.parts.map((part) => Number(part.rows))).toEqual(partSizes(names.length));
        }),
        { numRuns: 12 },
      );
    },
    3 * MINUTE_MS,
  );

  const partSizes = (count: number): number[] =>
    Array.from({ length: Math.ceil(count / PART_ROWS) }, (_, part) => Math.min(PART_ROWS, count - part * PART_ROWS));

  test('SD files hold the structure of each hit’s best pose, and no atoms where none is kept', async () => {
    const { jobId } = await finishedJob(['one', 'two', 'three']);
    await rows(
      org,
      'UPDATE docking_results SET pose_object = NULL, pose_offset = NULL, pose_length = NULL WHERE job_id = $1 AND item_no = 2',
      [jobId],
    );
    const { contents } = await exported({ jobId, format: ExportFormat.SDF });
    const records = readSdf(Buffer.concat(contents).toString());
    const atoms = records.map(({ title, structure }) => [title, Number(structure.split('\n')[3]!.slice(0, 3))]);
    expect(Object.fromEntries(atoms)).toEqual({ one: 1, two: 0, three: 1 });
  });

  test('a hit without poses, of a task without docking, has the same columns', async () => {
    const job = await world.materialize(org, { smiles: newSmiles(3), plans: [similarity()] });
    await world.run(org, job.runnable[0]!.taskExecutionId, (_smiles, itemNo) => ({ score: itemNo / 10 }));
    const { contents } = await exported({ jobId: job.jobId, format: ExportFormat.CSV });
    const [heading, ...lines] = readCsv(contents[0]!.toString());
    expect(lines.map((line) => line[heading!.indexOf('score')])).toEqual(['0.3', '0.2', '0.1']);
    expect(lines.map((line) => line[heading!.indexOf('pose_score')])).toEqual([null, null, null]);
    expect(lines.map((line) => line[heading!.indexOf('molecule_name')])).toEqual(['', '', '']);
  });
});

describe('which hits', () => {
  test('a filter selects as in ListHits, and an export of nothing is one empty part', async () => {
    const { jobId } = await finishedJob(Array.from({ length: 20 }, (_, index) => `m${index}`));
    const some = await exported({
      jobId,
      format: ExportFormat.JSON_LINES,
      filter: 'rank <= 10 AND molecular_weight < 100',
    });
    const found = Buffer.concat(some.contents).toString().trim().split('\n');
    const { hits } = await world.jobRuns.listHits(
      { orgId: org.orgId, jobId, filter: 'rank <= 10 AND molecular_weight < 100' },
      bearer(org.token),
    );
    expect(found.map((line) => (JSON.parse(line) as { item_no: number }).item_no)).toEqual(
      hits.map((hit) => hit.itemNo),
    );
    const none = await exported({ jobId, format: ExportFormat.CSV, filter: 'score < -49' });
    expect(none.export.parts).toMatchObject([{ partNo: 1, rows: 0n }]);
    expect(readCsv(none.contents[0]!.toString())).toHaveLength(1);
    const empty = await exported({ jobId, format: ExportFormat.PARQUET, filter: 'score < -49' });
    expect(empty.export.parts).toMatchObject([{ partNo: 1, rows: 0n }]);
  });

  test('hits that end after it began are not in it, also when it is written later', async () => {
    const job = await dockedJob(
      Array.from({ length: 12 }, (_, index) => `m${index}`),
      { chunkSize: 6 },
    );
    expect(job.executions).toHaveLength(2);
    await job.run(job.executions[0]!);
    const first = await exported({ jobId: job.jobId, format: ExportFormat.CSV });
    expect(Number(first.export.rows)).toBe(6);
    // As if its process had died before it wrote anything.
    await rows(org, 'DELETE FROM export_parts WHERE export_id = $1', [first.exportId]);
    await rows(
      org,
      `UPDATE exports SET state = 'running', ended_at = NULL, manifest = NULL, next_hit = NULL, rows_done = 0, size_bytes = 0
        WHERE export_id = $1`,
      [first.exportId],
    );
    await job.run(job.executions[1]!);
    const again = await endedExport(world.exports, org, job.jobId, first.exportId);
    expect(again.export.parts).toEqual(first.export.parts);
    expect(Number((await exported({ jobId: job.jobId, format: ExportFormat.CSV })).export.rows)).toBe(12);
  });

  test('cached hits say where they are from, duplicates are left out when asked', async () => {
    const source = await finishedJob(['a', 'b']);
    const molecules = [...source.molecules, { ...source.molecules[0]! }];
    const again = await world.materialize(org, { molecules, plans: [docking({ chunkSize: 1000 })] });
    const all = await exported({ jobId: again.jobId, format: ExportFormat.JSON_LINES });
    const lines = Buffer.concat(all.contents).toString().trim().split('\n');
    expect(lines.map((line) => JSON.parse(line) as object)).toEqual(
      lines.map(() => expect.objectContaining({ source: 'cached', reused_from_job_id: source.jobId })),
    );
    expect(lines).toHaveLength(3);
    const best = await exported({ jobId: again.jobId, format: ExportFormat.JSON_LINES, bestPerMolecule: true });
    expect(Number(best.export.rows)).toBe(2);
  });
});

describe('what an export says of itself', () => {
  test('the manifest names what was asked, how it was computed, and each file', async () => {
    const { jobId } = await finishedJob(Array.from({ length: 10 }, (_, index) => `m${index}`));
    const {
      manifest,
      exportId,
      export: whole,
    } = await exported({ jobId, format: ExportFormat.CSV, filter: 'score < 0' });
    expect(manifest).toMatchObject({
      manifest_version: 1,
      export_id: exportId,
      org_id: org.orgId,
      format: 'csv',
      hits: { job_id: jobId, task_id: 'dock', filter: 'score < 0', score_units: 'kcal/mol' },
      snapshot: { event_seq: Number(whole.snapshotSeq) },
      computed_by: { engine: 'vina@1.2.3', task: 'vina.dock', rdkit_version: '2026.09.1' },
      rows: 10,
      parts: whole.parts.map(({ file, rows: count, sha256 }) => ({ file, rows: Number(count), sha256 })),
    });
    expect(whole.parts.map(({ file }) => file)).toEqual(['part-00001.csv', 'part-00002.csv']);
  });

  test('exports are listed, the newest first, page by page', async () => {
    const { jobId } = await finishedJob(['one']);
    const ids: string[] = [];
    for (let count = 0; count < 3; count += 1) {
      ids.unshift((await exported({ jobId, format: ExportFormat.CSV })).exportId);
    }
    const list = (pageToken = '') =>
      world.exports.listExports({ orgId: org.orgId, jobId, pageSize: 2, pageToken }, bearer(org.token));
    const first = await list();
    const second = await list(first.nextPageToken);
    expect([...first.exports, ...second.exports].map(({ exportId }) => exportId)).toEqual(ids);
    expect(second.nextPageToken).toBe('');
  });
});

describe('an export that cannot be, or is not wanted any more', () => {
  test('is refused by name', async () => {
    const { jobId } = await finishedJob(['one']);
    const screen = await world.materialize(org, { smiles: newSmiles(1), plans: [similarity()] });
    const { exports } = world;
    const refusal = (asked: Asked) => failureOf(beginExport(exports, org, asked));
    const csv = { jobId, format: ExportFormat.CSV };
    expect(await refusal({ ...csv, filter: 'score' })).toMatchObject({ code: Code.InvalidArgument });
    expect(await refusal({ ...csv, filter: 'score > -8 AND rank <= 3' })).toMatchObject({ code: Code.InvalidArgument });
    expect(await refusal({ ...csv, taskId: 'none' })).toMatchObject({ code: Code.InvalidArgument });
    expect(await refusal({ ...csv, jobId: uuidv7() })).toMatchObject({ code: Code.NotFound });
    expect(await refusal({ ...csv, format: ExportFormat.UNSPECIFIED })).toMatchObject({ code: Code.InvalidArgument });
    const sdf = await refusal({ jobId: screen.jobId, format: ExportFormat.SDF });
    expect(sdf.message).toContain('SD files hold docked poses');
    const exportId = await beginExport(exports, org, csv);
    const ask = { orgId: org.orgId, jobId: screen.jobId, exportId };
    expect(await failureOf(exports.getExport(ask, bearer(org.token)))).toMatchObject({ code: Code.NotFound });
  });

  test('a repeated request is the same export, and another one with its id is refused', async () => {
    const { jobId } = await finishedJob(['one']);
    const request = { orgId: org.orgId, requestId: uuidv7(), jobId, format: ExportFormat.CSV };
    const first = await world.exports.createExport(request, bearer(org.token));
    const again = await world.exports.createExport(request, bearer(org.token));
    expect(again.export!.exportId).toBe(first.export!.exportId);
    const other = await failureOf(world.exports.createExport({ ...request, filter: 'score < 0' }, bearer(org.token)));
    expect(other).toMatchObject({ code: Code.AlreadyExists, message: expect.stringContaining('filter') });
  });

  test('only who may do so begins, reads and removes exports', async () => {
    const { jobId } = await finishedJob(['one']);
    const token = await userToken({ orgId: org.orgId, permissions: ['jobs.read'] });
    const request = { orgId: org.orgId, jobId, exportId: uuidv7() };
    for (const call of [
      () => world.exports.createExport({ ...request, requestId: uuidv7(), format: ExportFormat.CSV }, bearer(token)),
      () => world.exports.getExport(request, bearer(token)),
      () => world.exports.listExports(request, bearer(token)),
      () => world.exports.deleteExport(request, bearer(token)),
    ]) {
      expect(await failureOf(call())).toMatchObject({ code: Code.PermissionDenied });
    }
  });

  test('another organization finds none of it, whatever it asks', async () => {
    const { jobId } = await finishedJob(['one']);
    const { exportId } = await exported({ jobId, format: ExportFormat.CSV });
    const other = await world.organization();
    for (const orgId of [org.orgId, other.orgId]) {
      const name = { orgId, jobId, exportId };
      const as = bearer(other.token);
      for (const call of [
        () => world.exports.getExport(name, as),
        () => world.exports.listExports(name, as),
        () => world.exports.deleteExport(name, as),
        () => world.exports.createExport({ ...name, requestId: uuidv7(), format: ExportFormat.CSV }, as),
        () => Array.fromAsync(world.exports.downloadExport({ ...name, partNo: 1 }, as)),
        () => Array.fromAsync(world.poses.downloadPoses(name, as)),
        () => world.poses.getPose({ ...name, itemNo: 1 }, as),
      ]) {
        expect(await failureOf(call())).toMatchObject({ code: Code.NotFound });
      }
    }
  });

  test('removed, it leaves no file', async () => {
    const { jobId } = await finishedJob(Array.from({ length: 20 }, (_, index) => `m${index}`));
    const { exportId } = await exported({ jobId, format: ExportFormat.PARQUET });
    const folder = join(world.objectFolder, 'orgs', org.orgId, 'exports', exportId);
    expect(await readdir(folder)).toHaveLength(3);
    await world.exports.deleteExport({ orgId: org.orgId, jobId, exportId }, bearer(org.token));
    for (let round = 0; (await readdir(folder).catch(() => [])).length > 0; round += 1) {
      if (round === 200) throw new Error('files are left');
      await sleep(25);
    }
    const gone = world.exports.getExport({ orgId: org.orgId, jobId, exportId }, bearer(org.token));
    expect(await failureOf(gone)).toMatchObject({ code: Code.NotFound });
  });

  test('its files say nothing to whoever has the disk, and one that was altered is not given out', async () => {
    const { jobId } = await finishedJob(['aspirin']);
    const { exportId, contents } = await exported({ jobId, format: ExportFormat.CSV });
    expect(contents[0]!.includes('aspirin')).toBe(true);
    const folder = join(world.objectFolder, 'orgs', org.orgId, 'exports', exportId);
    const [name] = await readdir(folder);
    const kept = await readFile(join(folder, name!));
    expect(kept.includes('aspirin')).toBe(false);
    kept[kept.length - 1]! ^= 1;
    await writeFile(join(folder, name!), kept);
    const download = Array.fromAsync(
      world.exports.downloadExport({ orgId: org.orgId, jobId, exportId, partNo: 1 }, bearer(org.token)),
    );
    expect(await failureOf(download)).toMatchObject({
      code: Code.DataLoss,
      rawMessage: 'part 1 of the export is damaged in the object store',
    });
  });

  test('removed while it is written, it is not finished, and leaves nothing', async () => {
    const { jobId } = await finishedJob(Array.from({ length: 200 }, (_, index) => `m${index}`));
    const exportId = await beginExport(world.exports, org, { jobId, format: ExportFormat.SDF });
    await world.exports.deleteExport({ orgId: org.orgId, jobId, exportId }, bearer(org.token));
    for (let round = 0; ; round += 1) {
      const notes = await rows(org, `SELECT FROM stored_objects WHERE owner_id = $1`, [exportId]);
      const folder = join(world.objectFolder, 'orgs', org.orgId, 'exports', exportId);
      if (notes.length === 0 && (await readdir(folder).catch(() => [])).length === 0) break;
      if (round === 400) throw new Error(`left: ${notes.length} notes`);
      // The sweep that begins with a job.
      if (round % 20 === 0) await world.materialize(org, { smiles: newSmiles(1) });
      await sleep(25);
    }
  });

  test('fails in words where a structure is lost, and is not tried for ever', async () => {
    const { jobId } = await finishedJob(['one']);
    await rm(join(world.objectFolder, 'orgs', org.orgId, 'poses', jobId), { recursive: true });
    const exportId = await beginExport(world.exports, org, { jobId, format: ExportFormat.SDF });
    const { export: failed } = await endedExport(world.exports, org, jobId, exportId);
    expect(failed).toMatchObject({ state: ExportState.FAILED, error: expect.stringContaining('missing') });
    for (let round = 0; (await rows(org, `SELECT FROM stored_objects WHERE owner_id = $1`, [exportId])).length > 0;) {
      if ((round += 1) > 200) throw new Error('what it began is still noted');
      await sleep(25);
    }
    // Without structures it can be taken away.
    await exported({ jobId, format: ExportFormat.CSV });
  });
});
