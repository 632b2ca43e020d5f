import { writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { createLogger, runMain, type Logger } from '@mad/process';
import { writeComposeSecrets } from './compose-secrets.ts';
import { migrateMetadata, migratorUrl } from './databases.ts';
import { environmentOf } from './environment.ts';
import { backUpMetadata, localPlace, restoreMetadata, verifyMetadata, type MetadataPlace } from './metadata-backup.ts';
import type { Ports } from './ports.ts';
import { scaffoldMigration } from './migration-scaffold.ts';
import { reset } from './reset.ts';
import { readSecrets } from './secrets.ts';
import { sqlShell } from './shell.ts';
import { startLocal } from './start.ts';
import { StateFile } from './state-file.ts';
import { runningState, withPostgres } from './with-postgres.ts';

const METADATA = 'mad_metadata';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    home: { type: 'string', default: '.mad' },
    port: { type: 'string' },
    service: { type: 'string', default: 'catalog' },
    out: { type: 'string', default: 'deploy/compose/secrets' },
    json: { type: 'boolean', default: false },
  },
});
const home = resolve(values.home);
const [verb, name = ''] = positionals;

/** The verbs of the local system's program; `mad` runs them. */
const verbs: Record<string, () => Promise<void>> = {
  up: () => runMain('local', up),
  reset: () => reset(home),
  migrate,
  shell,
  migration,
  secrets,
  environment,
  'metadata-backup': metadataBackup,
  'metadata-verify': metadataVerify,
  'metadata-restore': metadataRestore,
};

const run = verbs[verb ?? ''];
if (!run) {
  process.stderr.write(`usage: main.ts ${Object.keys(verbs).join('|')} [--home folder] [--out folder]\n`);
  process.exitCode = 2;
} else {
  await run().catch((error: unknown) => {
    process.stderr.write(`${(error as Error).message}\n`);
    process.exitCode = 1;
  });
}

async function up(logger: Logger) {
  const state = new StateFile(home);
  try {
    const system = await startLocal({
      home,
      logger,
      outer: process.env,
      onPhase: (phase) => void state.update({ phase }),
      ...(values.port === undefined ? {} : { gatewayPort: Number(values.port) }),
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
  const ran = await withPostgres(home, (_adminUrl, port) =>
    migrateMetadata(migratorUrl({ host: '127.0.0.1', port, database: METADATA }, secrets), (message) =>
      logger.info(message),
    ),
  );
  if (values.json) process.stdout.write(`${JSON.stringify(ran)}\n`);
  for (const [schema, migrations] of values.json ? [] : Object.entries(ran)) {
    process.stdout.write(`${schema}: ${migrations.length === 0 ? 'up to date' : migrations.join(', ')}\n`);
  }
}

async function metadataBackup(): Promise<void> {
  const made = await onMetadata(backUpMetadata);
  answer(made, `${made.archive}: ${made.rows} rows, ${made.sizeBytes} bytes; keys by themselves in ${made.keys}`);
}

async function metadataVerify(): Promise<void> {
  const rows = await onMetadata((place) => verifyMetadata(place, name));
  answer({ ok: true, archive: name, rows }, `${name} is whole: ${rows} rows`);
}

async function metadataRestore(): Promise<void> {
  if (runningState(home) !== undefined) throw new Error('the system runs; run: mad down');
  const { rows, replaced } = await onMetadata((place) => restoreMetadata(place, name));
  const kept = replaced === undefined ? '' : `; ${replaced} holds what it replaced`;
  answer({ ok: true, archive: name, rows, replaced: replaced ?? '' }, `${name} is restored: ${rows} rows${kept}`);
}

function answer(value: unknown, text: string): void {
  process.stdout.write(`${values.json ? JSON.stringify(value) : text}\n`);
}

async function onMetadata<T>(fn: (place: MetadataPlace) => Promise<T>): Promise<T> {
  const known = await readSecrets(home);
  if (!known) throw new Error(`${home} holds no local system; run: mad up`);
  return withPostgres(home, (adminUrl, port) => {
    const migrateUrl = migratorUrl({ host: '127.0.0.1', port, database: METADATA }, known);
    return fn(localPlace(home, known, { adminUrl, migrateUrl, database: METADATA }));
  });
}

async function shell(): Promise<void> {
  process.exitCode = await withPostgres(home, (adminUrl) => sqlShell(metadataUrl(adminUrl)));
}

async function migration(): Promise<void> {
  const file = await withPostgres(home, (adminUrl) =>
    scaffoldMigration(metadataUrl(adminUrl), values.service, name, new Date()),
  );
  process.stdout.write(`${file}\nadd it to the list in ${join('services', values.service, 'src/db/schema.ts')}\n`);
}

async function secrets(): Promise<void> {
  const out = resolve(values.out);
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

/** The metadata database, with every service's schema in reach of plain names. */
function metadataUrl(adminUrl: string): string {
  const url = new URL(adminUrl);
  url.pathname = `/${METADATA}`;
  url.searchParams.set('options', '-c search_path=reporting,identity,catalog,provisioner,public');
  return url.href;
}
