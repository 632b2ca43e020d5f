import { readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { lastBaseBackupAttempt, listBaseBackups, readBaseBackupPolicy, takeBaseBackup } from '@mad/embedded-postgres';
import type { PutBack, TableDifference } from '@mad/postgres';
import { createLogger, readEnv, runMain, type Logger, type Running, type ServiceDeps } from '@mad/process';
import { readMetadataBackupPolicy, readTenantSchemas } from '@mad/provisioner';
import { writeComposeSecrets } from './compose-secrets.ts';
import { bootstrap, migrateMetadata, migratorUrl } from './databases.ts';
import { environmentOf } from './environment.ts';
import { installedPlace, namesInstalled } from './installed-place.ts';
import {
  backUpMetadata,
  databaseUrl,
  localPlace,
  restoreMetadata,
  verifyMetadata,
  type MetadataPlace,
} from './metadata-backup.ts';
import { MetadataBackupKeeper } from './metadata-backup-keeper.ts';
import { backUpThePast } from './point-in-time.ts';
import type { Ports } from './ports.ts';
import { prepareServer, type ServerPasswords } from './prepare-server.ts';
import { scaffoldMigration } from './migration-scaffold.ts';
import { reset } from './reset.ts';
import { restoreOrganization, RowsDiffer } from './restore-organization.ts';
import { writeSchemaPages } from './schema-docs/write-pages.ts';
import { refuseMetadataDrift } from './metadata-drift.ts';
import { readSecrets } from './secrets.ts';
import { resultsDatabaseOf } from './shell/results-database.ts';
import { sqlShell } from './shell/shell.ts';
import { startLocal } from './start.ts';
import { StateFile } from './state-file.ts';
import { runningState, withPostgres } from './with-postgres.ts';

const METADATA = 'mad_metadata';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    home: { type: 'string', default: '.mad' },
    port: { type: 'string' },
    'archive-wal': { type: 'string' },
    to: { type: 'string', default: '' },
    service: { type: 'string', default: 'catalog' },
    out: { type: 'string' },
    check: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    org: { type: 'string' },
    write: { type: 'boolean', default: false },
    passwords: { type: 'string' },
    'dry-run': { type: 'boolean', default: false },
    'missing-only': { type: 'boolean', default: false },
    replace: { type: 'boolean', default: false },
  },
});
const home = resolve(values.home);
const [verb, name = '', second = ''] = positionals;

/** The verbs of the local system's program; `mad` runs them. */
const verbs: Record<string, () => Promise<void>> = {
  up: () => runMain('local', up),
  reset: () => reset(home),
  migrate,
  shell,
  migration,
  erd,
  secrets,
  environment,
  'metadata-backup': metadataBackup,
  'metadata-keep': () => runMain('metadata-backup', keepMetadata),
  'metadata-verify': metadataVerify,
  'metadata-restore': metadataRestore,
  'metadata-restore-organization': metadataRestoreOrganization,
  'base-backup': baseBackup,
  'base-backups': baseBackups,
  'past-backup': pastBackup,
  'prepare-server': prepare,
};

const run = verbs[verb ?? ''];
if (!run) {
  process.stderr.write(`usage: main.ts ${Object.keys(verbs).join('|')} [--home folder] [--out folder]\n`);
  process.exitCode = 2;
} else {
  await run().catch((error: unknown) => {
    const { message, exitCode = 1 } = error as Error & { exitCode?: number };
    process.stderr.write(`${values.json ? JSON.stringify({ error: message, exitCode }) : message}\n`);
    process.exitCode = exitCode;
  });
}

async function up({ logger }: { logger: Logger }) {
  const state = new StateFile(home);
  try {
    const system = await startLocal({
      home,
      logger,
      outer: process.env,
      onPhase: (phase) => void state.update({ phase }),
      ...(values.port === undefined ? {} : { gatewayPort: Number(values.port) }),
      ...(values['archive-wal'] === undefined ? {} : { archiveWal: values['archive-wal'] === 'on' }),
    });
    const { port, version } = system.postgres;
    await state.listening(system.ports, { port, version });
    await state.update({ phase: 'running', ready: true });
    return {
      close: async () => {
        await state.update({ phase: 'stopping', ready: false });
        await system.close();
        await state.update({ phase: 'stopped', pid: 0 });
      },
    };
  } catch (error) {
    await state.update({ phase: 'failed', error: (error as Error).message });
    throw error;
  }
}

async function migrate(): Promise<void> {
  const secrets = await readSecrets(home);
  if (!secrets) throw new Error(`${home} holds no local system; run: mad up`);
  const logger = createLogger('local', { level: 'warn' });
  const ran = await withPostgres(home, async (adminUrl, port) => {
    const place = { host: '127.0.0.1', port, database: METADATA };
    // A new version may ask for roles that the old one did not have.
    await bootstrap(adminUrl, place, secrets, Object.keys(readEnv(process.env, readTenantSchemas)));
    const migrateUrl = migratorUrl(place, secrets);
    await refuseMetadataDrift({ adminUrl, migrateUrl, database: METADATA });
    return migrateMetadata(migrateUrl, (message) => logger.info(message));
  });
  if (values.json) process.stdout.write(`${JSON.stringify(ran)}\n`);
  for (const [schema, migrations] of values.json ? [] : Object.entries(ran)) {
    process.stdout.write(`${schema}: ${migrations.length === 0 ? 'up to date' : migrations.join(', ')}\n`);
  }
}

async function metadataBackup(): Promise<void> {
  const { keep } = readEnv(process.env, readMetadataBackupPolicy);
  const made = await onMetadata((place) => backUpMetadata(place, { keep }));
  answer(made, `${made.archive}: ${made.rows} rows, ${made.sizeBytes} bytes; keys by themselves in ${made.keys}`);
}

/** Archives the metadata by the clock, until it is told to end: for a system whose services run elsewhere. */
function keepMetadata({ logger, metrics }: Required<ServiceDeps>): Promise<Running> {
  const place = installedPlace(process.env);
  const policy = readEnv(process.env, readMetadataBackupPolicy);
  return Promise.resolve(new MetadataBackupKeeper({ place, ...policy, logger, metrics }));
}

async function metadataVerify(): Promise<void> {
  const rows = await onMetadata((place) => verifyMetadata(place, name));
  answer({ ok: true, archive: name, rows }, `${name} is whole: ${rows} rows`);
}

async function metadataRestore(): Promise<void> {
  if (runningState(home) !== undefined) throw new Error('the system runs; run: mad down');
  const { rows, replaced, erased } = await onMetadata((place) => restoreMetadata(place, name));
  const kept = replaced === undefined ? '' : `; ${replaced} holds what it replaced`;
  const again = erased === 0 ? '' : `; ${erased} erased organizations were erased from it again`;
  answer(
    { ok: true, archive: name, rows, replaced: replaced ?? '', erased },
    `${name} is restored: ${rows} rows${again}${kept}`,
  );
}

async function metadataRestoreOrganization(): Promise<void> {
  const mode: PutBack | undefined = values.replace ? 'replace' : values['missing-only'] ? 'missing-only' : undefined;
  const request = { archive: name, organization: second, dryRun: values['dry-run'], ...(mode && { mode }) };
  const { orgId, operationId, tables } = await onMetadata((place) => restoreOrganization(place, request)).catch(
    (error: unknown) => {
      if (error instanceof RowsDiffer) process.stderr.write(`${tableText(error.tables)}\n`);
      throw error;
    },
  );
  const told = values['dry-run'] ? 'nothing was changed' : `${orgId} is restored, operation ${operationId}`;
  answer(
    { ok: true, archive: name, org_id: orgId, operation_id: operationId, tables },
    `${tableText(tables)}\n${told}`,
  );
}

/** What is missing, different and extra, where anything is. */
function tableText(tables: readonly TableDifference[]): string {
  const lines = tables
    .filter(({ missing, different, extra }) => missing + different + extra > 0)
    .map(({ table, rule, archived, missing, different, extra }) => {
      const stays = rule === 'missing' && different + extra > 0 ? ' (what is there stays)' : '';
      return `${table}: ${archived} archived, ${missing} missing, ${different} different, ${extra} not archived${stays}`;
    });
  return lines.length === 0 ? 'every row is as it was archived' : lines.join('\n');
}

async function baseBackup(): Promise<void> {
  const { keep } = readEnv(process.env, readBaseBackupPolicy);
  const base = await withPostgres(home, (adminUrl) => takeBaseBackup(join(home, 'postgres'), adminUrl, { keep }));
  const reach = `times from ${base.endedAt} on can be reached`;
  answer(base, `${base.name}: ${base.files} files, ${base.bytes} bytes; ${reach}`);
}

/** Lists the base backups, and how the last try to make one went. */
async function baseBackups(): Promise<void> {
  const { everyHours, keep } = readEnv(process.env, readBaseBackupPolicy);
  const dataDir = join(home, 'postgres');
  const bases = await listBaseBackups(dataDir);
  const last = await lastBaseBackupAttempt(dataDir);
  const lines = bases.map(({ name: base, files, bytes, endedAt, firstSegment }) => {
    return `${base}: ${files} files, ${bytes} bytes; needs the log from ${firstSegment}, reaches times from ${endedAt} on`;
  });
  const policy = everyHours === 0 ? 'none is made by itself' : `one every ${everyHours} h, ${keep} kept`;
  if (last !== undefined) lines.push(`last tried ${last.at}: ${last.error === '' ? 'well' : last.error}`);
  answer({ bases, last_attempt: last ?? null, every_hours: everyHours, keep }, [...lines, policy].join('\n'));
}

/** Makes a backup of an organization's results as they were. */
async function pastBackup(): Promise<void> {
  const log = (message: string): void => void (values.json || process.stderr.write(`… ${message}\n`));
  const made = await onMetadata((place) => backUpThePast(place, { home, orgId: name, to: values.to, log }));
  answer(made, `${made.backupId}: as of ${made.at}, ${made.rows} rows, ${made.sizeBytes} bytes`);
}

/** Prepares a server; the superuser's URL comes by standard input, the passwords go to standard output. */
async function prepare(): Promise<void> {
  const adminUrl = (await text(process.stdin)).trim();
  if (!/^postgres(ql)?:/.test(adminUrl) || !URL.canParse(adminUrl)) {
    throw new Error("standard input must be a superuser's URL, postgres://user:password@host:port/postgres");
  }
  const known =
    values.passwords === undefined
      ? undefined
      : (JSON.parse(await readFile(values.passwords, 'utf8')) as ServerPasswords);
  const schemas = Object.keys(readEnv(process.env, readTenantSchemas));
  const warn = (message: string): void => void process.stderr.write(`… ${message}\n`);
  process.stdout.write(`${JSON.stringify(await prepareServer(adminUrl, { schemas, known, warn }))}\n`);
}

function answer(value: unknown, said: string): void {
  process.stdout.write(`${values.json ? JSON.stringify(value) : said}\n`);
}

/** On the metadata of the local system, or of the one whose databases the settings name. */
async function onMetadata<T>(fn: (place: MetadataPlace) => Promise<T>): Promise<T> {
  if (namesInstalled(process.env)) return fn(installedPlace(process.env));
  const known = await readSecrets(home);
  if (!known) throw new Error(`${home} holds no local system; run: mad up`);
  return withPostgres(home, (adminUrl, port) => {
    const migrateUrl = migratorUrl({ host: '127.0.0.1', port, database: METADATA }, known);
    return fn(localPlace(home, known, { adminUrl, migrateUrl, database: METADATA }));
  });
}

async function shell(): Promise<void> {
  process.exitCode = await withPostgres(home, async (adminUrl) => {
    const urlOf = (database: string): string => databaseUrl(adminUrl, database);
    const database = values.org === undefined ? METADATA : await resultsDatabaseOf(urlOf(METADATA), values.org);
    const { stdin: input, stdout: output, stderr: errors } = process;
    return sqlShell({ urlOf, database, readOnly: !values.write, json: values.json, input, output, errors });
  });
}

async function migration(): Promise<void> {
  const file = await withPostgres(home, (adminUrl) =>
    scaffoldMigration(databaseUrl(adminUrl, METADATA), values.service, name, new Date()),
  );
  process.stdout.write(`${file}\nadd it to the list in ${join('services', values.service, 'src/db/schema.ts')}\n`);
}

/** Writes the pages of the schemas, or with --check fails when they are not as the migrations have them. */
async function erd(): Promise<void> {
  const folder = resolve(values.out ?? fileURLToPath(new URL('../../../docs/schema', import.meta.url)));
  const log = (message: string): void => void (values.json || process.stderr.write(`… ${message}\n`));
  const stale = await writeSchemaPages(folder, { check: values.check, log });
  const ok = stale.length === 0 || !values.check;
  const told = values.check ? 'not as the migrations have them' : 'written';
  const text = stale.length === 0 ? `${folder} is up to date` : `${told}: ${stale.join(', ')}`;
  process.stdout.write(`${values.json ? JSON.stringify({ ok, folder, pages: stale }) : text}\n`);
  if (!ok) process.exitCode = 1;
}

async function secrets(): Promise<void> {
  const out = resolve(values.out ?? 'deploy/compose/secrets');
  const written = await writeComposeSecrets(out);
  process.stdout.write(
    written.length === 0 ? `${out} holds secrets already: nothing changed\n` : `${written.length} secrets in ${out}\n`,
  );
}

/** Writes the running system's settings where `node --env-file` reads them, so that one service can be run by itself. */
async function environment(): Promise<void> {
  const state = runningState(home);
  const known = await readSecrets(home);
  if (!state?.ready || !known) throw new Error(`no local system runs in ${home}; run: mad up`);
  const postgres = { host: '127.0.0.1', port: state.postgres.port, database: METADATA };
  const ports = { ...state.services, gateway: Number(new URL(state.url).port) } as Ports;
  const settings = Object.entries(environmentOf({ home, postgres, ports, secrets: known }, {}));
  const file = join(home, 'service.env');
  await writeFile(file, settings.map(([key, value]) => `${key}='${value}'\n`).join(''), { mode: 0o600 });
  process.stdout.write(`${file}\n`);
}
