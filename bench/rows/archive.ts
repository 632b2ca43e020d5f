import { open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createClient, type Client } from '@connectrpc/connect';
import { BackupService, OperationService, OperationState, type Operation, type Route } from '@mad/proto/provisioner';
import type pg from 'pg';
import { from as copyFrom, to as copyTo } from 'pg-copy-streams';
import { interleave, millisecondsOf } from '../measure.ts';
import { pgDumpVersion, startDumpServer } from '../pg-dump.ts';
import { scaled, type Bench, type Line, type Row } from '../row.ts';
import { SCHEMA, type BenchSystem } from '../system.ts';

const POSES = 300_000;
const JOBS = 2_000;
const MEGABYTE = 1_000_000;
/** Where the floor's rows wait between out and in. */
const RAW = join(tmpdir(), `mad-bench-raw-${process.pid}`);

/** One tenant's tables, and what the row asks with. */
interface Place {
  route: Route;
  admin: pg.Client;
  backups: Client<typeof BackupService>;
  operations: Client<typeof OperationService>;
}

/** A tenant with the two tables that make up most of one: poses and jobs. */
async function prepare(bench: Bench, system: BenchSystem): Promise<Place> {
  const route = await system.newTenant();
  const admin = await system.admin(route.database);
  const jobs = scaled(bench, JOBS, 10);
  bench.progress('filling a tenant');
  await admin.query('SELECT results.ensure_partitions(now()::date)');
  await admin.query(
    `INSERT INTO results.jobs (pipeline_version_id, status, input_signature, params, requested, scored, created_by, ended_at)
     SELECT gen_random_uuid(), 'completed', repeat('ab', 32), '{"reference": "CCO", "top": 100}', 100, 100,
       gen_random_uuid()::text, now() FROM generate_series(1, ${jobs})`,
  );
  await admin.query(
    `INSERT INTO results.docking_results (job_id, task_id, item_no, replicate, pose_rank, molecule_id, score, raw_score,
       rmsd_lb, rmsd_ub, task_execution_id, chunk_no, metadata)
     SELECT job.id, 'dock', 1 + n / 9, 1, 1 + n % 9, gen_random_uuid(), -4 - random() * 8, -4 - random() * 8,
       random() * 3, random() * 6, job.execution, 1 + n / 900, '{"engine": "vina"}'
     FROM (SELECT gen_random_uuid() AS execution,
         (rpad(lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - j), 12, '0') || '70008000', 32, '0'))::uuid AS id
       FROM generate_series(1, 10) j) job, generate_series(0, ${Math.round(scaled(bench, POSES, 10_000) / 10) - 1}) n`,
  );
  await admin.query('VACUUM ANALYZE');
  const as = await system.platform('provisioner');
  return { route, admin, backups: createClient(BackupService, as), operations: createClient(OperationService, as) };
}

async function ended({ operations }: Place, { operationId }: Operation): Promise<Operation> {
  for await (const { operation } of operations.watchOperation({ operationId })) {
    if (operation!.state === OperationState.RUNNING) continue;
    if (operation!.state === OperationState.SUCCEEDED) return operation!;
    throw new Error(`${operation!.kind} failed: ${operation!.error}`);
  }
  throw new Error('the stream ended first');
}

/** From the operation's own clock: a watcher sees its end up to 200 ms later. */
function took({ createTime, endTime }: Operation): number {
  const ms = (time: NonNullable<Operation['endTime']>): number => Number(time.seconds) * 1_000 + time.nanos / 1e6;
  return ms(endTime!) - ms(createTime!);
}

const TABLES_SQL = `SELECT format('results.%I', relname) AS name FROM pg_class
  WHERE relnamespace = 'results'::regnamespace AND relkind = 'r' AND relname <> 'migrations' ORDER BY pg_table_size(oid) DESC`;

/** A table's columns in types that every server knows. */
const COLUMNS_SQL = `SELECT string_agg(format('%I %s', attname,
    CASE t.typtype WHEN 'e' THEN 'text' ELSE format_type(atttypid, atttypmod) END), ', ' ORDER BY attnum) AS columns
  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
  WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped`;

const tablesOf = async ({ admin }: Place): Promise<string[]> =>
  (await admin.query<{ name: string }>(TABLES_SQL)).rows.map(({ name }) => name);

/** The floor: the same tables in the same format, one after the other over one connection, into plain files. */
async function rawOut(place: Place): Promise<number> {
  let bytes = 0;
  for (const [index, name] of (await tablesOf(place)).entries()) {
    const file = await open(`${RAW}-${index}`, 'w');
    const into = file.createWriteStream({ flush: true });
    await pipeline(place.admin.query(copyTo(`COPY ${name} TO STDOUT`)), into);
    bytes += into.bytesWritten;
  }
  return bytes;
}

/** The floor: those files into the same tables, emptied, with all their indexes and keys. */
async function rawIn(place: Place): Promise<void> {
  const names = await tablesOf(place);
  await place.admin.query('BEGIN');
  await place.admin.query(`SET LOCAL session_replication_role = replica; TRUNCATE ${names.join(', ')}`);
  for (const [index, name] of names.entries()) {
    const file = await open(`${RAW}-${index}`);
    await pipeline(file.createReadStream(), place.admin.query(copyFrom(`COPY ${name} FROM STDIN`)));
  }
  await place.admin.query('COMMIT');
}

/** The peer: Debian's pg_dump, where it is, of a server of its version with the same rows. Megabytes of rows per second. */
async function dumped(place: Place, megabytes: number, rounds: number): Promise<number[]> {
  const server = await startDumpServer();
  try {
    const { client } = server;
    await client.query('CREATE SCHEMA results');
    for (const [index, name] of (await tablesOf(place)).entries()) {
      const { rows } = await place.admin.query<{ columns: string }>(COLUMNS_SQL, [name]);
      await client.query(`CREATE TABLE ${name} (${rows[0]!.columns})`);
      const file = await open(`${RAW}-${index}`);
      await pipeline(file.createReadStream(), client.query(copyFrom(`COPY ${name} FROM STDIN`)));
    }
    await client.query('CHECKPOINT');
    const rates: number[] = [];
    for (let round = 0; round <= rounds; round += 1) rates.push(megabytes / ((await server.dump()) / 1_000));
    // As elsewhere the first round is thrown away.
    return rates.slice(1);
  } finally {
    await server.stop();
  }
}

/** A tenant's archive and its restore, against raw COPY of the same tables. Both as operations, from asking to the end. */
export const archive: Row = {
  name: 'archive',
  async run(bench) {
    const system = await bench.system();
    const place = await prepare(bench, system);
    try {
      const megabytes = (await rawOut(place)) / MEGABYTE;
      const rate = (ms: number): number => megabytes / (ms / 1_000);
      const { orgId } = place.route;
      let backupId = '';
      const rounds = scaled(bench, 5, 1);
      const onRound = (what: string) => (round: number) => bench.progress(`${what}: round ${round} of ${rounds}`);
      const out = await interleave(
        rounds,
        {
          async ours() {
            const { backup, operation } = await place.backups.createBackup({ orgId, schema: SCHEMA });
            backupId = backup!.backupId;
            return rate(took(await ended(place, operation!)));
          },
          floor: async () => rate(await millisecondsOf(() => rawOut(place))),
        },
        onRound('archive'),
      );
      const peer = pgDumpVersion();
      if (peer !== undefined) bench.progress(peer);
      const rates = peer === undefined ? [] : await dumped(place, megabytes, rounds);
      const notes = { megabytes, format: 'COPY text', pg_dump: peer ?? 'none', pg_dump_megabytes_per_second: rates };
      const lines: Line[] = [{ name: 'archive', unit: 'MB/s', target: { of: 'ratio', atLeast: 0.6 }, ...out, notes }];
      // Verify: the same as a restore without the change of names, so that the floor's tables stay what they are.
      const back = await interleave(
        rounds,
        {
          async ours() {
            const { operation } = await place.backups.verifyBackup({ backupId });
            return rate(took(await ended(place, operation!)));
          },
          floor: async () => rate(await millisecondsOf(() => rawIn(place))),
        },
        onRound('restore'),
      );
      lines.push({ name: 'restore', unit: 'MB/s', target: { of: 'ratio', atLeast: 0.5 }, ...back, notes });
      return lines;
    } finally {
      await place.admin.end();
      for (let index = 0; index < 100; index += 1) await rm(`${RAW}-${index}`, { force: true });
    }
  },
};
