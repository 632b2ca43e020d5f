import type { Command } from 'commander';
import { timestampDate, type Timestamp } from '@bufbuild/protobuf/wkt';
import type { Env } from '@mad/process';
import {
  BackupPolicySchema,
  BackupSchema,
  BackupService,
  BackupState,
  OperationSchema,
  OperationState,
  TenantService,
  TenantState,
  type Backup,
  type Operation,
} from '@mad/proto/provisioner';
import type { Api } from '../api.ts';
import { action } from '../command.ts';
import { CommandFailure, EXIT, reportOf } from '../failure.ts';
import { jsonOf, table, type Output } from '../output.ts';
import { allPages, pageSizeFor } from '../pages.ts';
import { orgIdOf } from '../organization-id.ts';
import { asPlatform } from '../session.ts';
import type { Settings } from '../settings.ts';
import { watchOperation } from '../watch-operation.ts';
import { askLocal } from '../local-system.ts';
import { localVerb, refuseRemote } from './database.ts';

/** backup create, list, get, verify, restore, drop-replaced, delete, policy. */
export function backupCommands(mad: Command, env: Env): void {
  const backup = mad.command('backup').description("backups of the organizations' databases");
  backup
    .command('create [organization]')
    .description(
      'back up one organization (slug or id), or with --all every one that has a database and then the metadata of the local system',
    )
    .option('--schema <schema>', 'the tenant schema', 'results')
    .option('--all', 'every organization, then the metadata; one that fails keeps no other from its backup')
    .action(
      action<{ schema: string; all?: true }>(env, async ({ settings, output, options }, organization) => {
        const { api } = await asPlatform(settings);
        const { schema } = options;
        if ((organization === undefined) === (options.all === undefined)) {
          throw new CommandFailure('name one organization, or say --all', EXIT.usage);
        }
        const orgIds = options.all ? await everybody(api, schema) : [await orgIdOf(api, organization)];
        const outcomes: Outcome[] = [];
        const rows: (string | number)[][] = [];
        for (const orgId of orgIds) {
          try {
            const made = await create(api, output, orgId, schema);
            outcomes.push({ org_id: orgId, backup: jsonOf(BackupSchema, made), error: '' });
            rows.push(row(made));
          } catch (error) {
            if (!options.all) throw error;
            outcomes.push({ org_id: orgId, backup: null, error: reportOf(error).error });
            rows.push(['', orgId, 'failed', 0, 0, '', '', reportOf(error).error]);
          }
        }
        if (options.all && settings.remote)
          output.note('the metadata is archived where its database is: deploy/README.md');
        else if (options.all) {
          // Last: it knows of the backups before it.
          const outcome = await metadataToo(settings);
          outcomes.push(outcome);
          const { archive = '', rows: count = 0, sizeBytes = 0 } = outcome.metadata ?? {};
          rows.push([archive, 'metadata', outcome.error ? 'failed' : 'ready', count, sizeBytes, '', '', outcome.error]);
        }
        output.answer(options.all ? outcomes : outcomes[0]!.backup, table(HEADINGS, rows));
        if (outcomes.some(({ error }) => error !== '')) process.exitCode = EXIT.failed;
      }),
    );
  backup
    .command('list')
    .description('backups, newest first')
    .option('--org-id <id>', "one organization's", '')
    .option('--limit <n>', 'at most this many', Number, 50)
    .action(
      action<{ orgId: string; limit: number }>(env, async ({ settings, output, options }) => {
        const { api } = await asPlatform(settings);
        const request = { orgId: options.orgId, pageSize: pageSizeFor(options.limit) };
        const backups = await allPages(
          (pageToken) => api.client(BackupService).listBackups({ ...request, pageToken }),
          (page) => page.backups,
          options.limit,
        );
        output.answer(
          backups.map((one) => jsonOf(BackupSchema, one)),
          table(HEADINGS, backups.map(row)),
        );
      }),
    );
  backup
    .command('get <backup>')
    .description('one backup and what it holds')
    .action(
      action(env, async ({ settings, output }, backupId) => {
        const { api } = await asPlatform(settings);
        const { backup: found } = await api.client(BackupService).getBackup({ backupId });
        const tables = found!.tables.map((one) => [
          one.name,
          Number(one.rows),
          Number(one.rawBytes),
          Number(one.sizeBytes),
          one.contentSha256.slice(0, 16),
        ]);
        const inside = table(['table', 'rows', 'bytes', 'in the archive', 'sha256'], tables);
        output.answer(jsonOf(BackupSchema, found), `${table(HEADINGS, [row(found!)])}\n\n${inside}`);
      }),
    );
  backup
    .command('verify <backup>')
    .description('restore it into a database of its own, compare every row, drop that database')
    .action(
      action(env, async ({ settings, output }, backupId) => {
        const { api } = await asPlatform(settings);
        const { operation } = await api.client(BackupService).verifyBackup({ backupId });
        answerEnd(output, await watchOperation(api, output, operation!.operationId), `${backupId} is whole`);
      }),
    );
  backup
    .command('restore <backup>')
    .description("put it in the place of the organization's database; what was written since stays in the replaced one")
    .option('--yes', 'needed: the organization works with the restored data from then on')
    .option('--keep-hours <hours>', 'how long the replaced database is kept', Number)
    .action(
      action<{ yes?: true; keepHours?: number }>(env, async ({ settings, output, options }, backupId) => {
        if (options.yes === undefined) throw new CommandFailure('this replaces data: say --yes', EXIT.usage);
        const { api } = await asPlatform(settings);
        await restore(api, output, backupId, options.keepHours);
      }),
    );
  backup
    .command('restore-table <backup> <table>')
    .description(
      'bring one table back beside the others, into a new table of the schema "restored"; changes nothing else',
    )
    .action(
      action(env, async ({ settings, output }, backupId, name) => {
        const { api } = await asPlatform(settings);
        const { operation } = await api.client(BackupService).restoreTable({ backupId, table: name });
        const last = await watchOperation(api, output, operation!.operationId);
        const { database, tables = [] } = (last.result ?? {}) as { database?: string; tables?: { name: string }[] };
        answerEnd(output, last, tables.map((one) => `${database} has ${one.name}`).join('\n'));
      }),
    );
  backup
    .command('bases')
    .description("the copies of the local server's files, and how the last try to make one went")
    .action(
      action(env, async ({ settings }) => {
        await localVerb(settings, ['base-backups', '--home', settings.home, ...(settings.json ? ['--json'] : [])]);
      }),
    );
  backup
    .command('base')
    .description("copy the local server's files now, from which point-in-time recovery begins; made daily by itself")
    .action(
      action(env, async ({ settings }) => {
        await localVerb(settings, ['base-backup', '--home', settings.home, ...(settings.json ? ['--json'] : [])]);
      }),
    );
  backup
    .command('pitr <organization>')
    .description("bring one organization's database (slug or id) back to a moment; the others' are not touched")
    .requiredOption('--to <time>', 'the moment, e.g. 2026-11-25T18:00:00Z')
    .option('--yes', 'put it in the place of the database')
    .option('--backup-only', 'make a backup of that moment and restore nothing')
    .option('--keep-hours <hours>', 'how long the replaced database is kept', Number)
    .action(
      action<{ to: string; yes?: true; backupOnly?: true; keepHours?: number }>(
        env,
        async ({ settings, output, options }, organization) => {
          if ((options.yes === undefined) === (options.backupOnly === undefined)) {
            throw new CommandFailure('this replaces data: say --yes, or --backup-only', EXIT.usage);
          }
          refuseRemote(settings);
          const { api } = await asPlatform(settings);
          const orgId = await orgIdOf(api, organization);
          output.note('… recovering the server as it was, beside the one that runs');
          const made = (await askLocal(['past-backup', '--home', settings.home, '--to', options.to, orgId])) as {
            backupId: string;
            at: string;
            rows: number;
          };
          const { backupId, at, rows } = made;
          if (options.backupOnly) output.answer(made, `${backupId} is ${organization} as of ${at}: ${rows} rows`);
          else await restore(api, output, backupId, options.keepHours);
        },
      ),
    );
  backup
    .command('drop-replaced <operation>')
    .description('drop the database a restore or a move left behind, before its time')
    .action(
      action(env, async ({ settings, output }, operationId) => {
        const { api } = await asPlatform(settings);
        const { databaseName } = await api.client(BackupService).dropReplacedDatabase({ operationId });
        const text = databaseName === '' ? 'it is gone already' : `${databaseName} is dropped at the next sweep`;
        output.answer({ ok: true, database: databaseName }, text);
      }),
    );
  backup
    .command('delete <backup>')
    .description('remove a backup and its archive')
    .action(
      action(env, async ({ settings, output }, backupId) => {
        const { api } = await asPlatform(settings);
        await api.client(BackupService).deleteBackup({ backupId });
        output.answer({ ok: true, backup_id: backupId }, `${backupId} is removed`);
      }),
    );
  const metadata = backup.command('metadata').description('backups of the metadata database, on its own machine');
  const verb = (name: string, described: string, run: string): void => {
    metadata
      .command(name)
      .description(described)
      .action(
        action(env, async ({ settings }, ...archive) => {
          await localVerb(settings, [run, '--home', settings.home, ...(settings.json ? ['--json'] : []), ...archive]);
        }),
      );
  };
  verb('create', 'archive it as it is now; its keys go into an archive of their own', 'metadata-backup');
  verb('verify <archive>', 'restore it into a database of its own, compare every row, drop that', 'metadata-verify');
  verb(
    'restore <archive>',
    'put it in the place of the metadata database; the system must be down',
    'metadata-restore',
  );
  metadata
    .command('restore-organization <archive> <organization>')
    .description(
      "bring one organization's rows (slug or id) back into the metadata database at work; refuses when rows differ",
    )
    .option('--dry-run', 'count what is missing, different and not archived in each table; change nothing')
    .option('--missing-only', 'put back what is missing and leave what is there')
    .option('--replace', 'make its rows equal to the archive; what came since goes, but for what jobs need')
    .option('--yes', 'needed, unless it is a dry run')
    .action(
      action<{ dryRun?: true; missingOnly?: true; replace?: true; yes?: true }>(
        env,
        async ({ settings, options }, archive, organization) => {
          const { dryRun, missingOnly, replace, yes } = options;
          if (missingOnly && replace) throw new CommandFailure('say --missing-only or --replace, not both', EXIT.usage);
          if (!dryRun && !yes) throw new CommandFailure('this writes metadata: say --yes, or --dry-run', EXIT.usage);
          const flags = [dryRun && '--dry-run', missingOnly && '--missing-only', replace && '--replace'];
          const more = [...flags, settings.json ? '--json' : undefined].filter((one) => typeof one === 'string');
          await localVerb(settings, [
            'metadata-restore-organization',
            '--home',
            settings.home,
            ...more,
            archive,
            organization,
          ]);
        },
      ),
    );
  backup
    .command('policy <organization>')
    .description('how often an organization (slug or id) is backed up; with both options, sets it')
    .option('--every-hours <hours>', 'hours from one backup to the next; 0 makes none', Number)
    .option('--keep <n>', 'how many are kept', Number)
    .action(
      action<{ everyHours?: number; keep?: number }>(env, async ({ settings, output, options }, organization) => {
        const { api } = await asPlatform(settings);
        const orgId = await orgIdOf(api, organization);
        const { everyHours, keep } = options;
        if ((everyHours === undefined) !== (keep === undefined)) {
          throw new CommandFailure('give both --every-hours and --keep, or neither', EXIT.usage);
        }
        const client = api.client(BackupService);
        const { policy } =
          everyHours === undefined || keep === undefined
            ? await client.getBackupPolicy({ orgId })
            : await client.setBackupPolicy({ orgId, everyHours, keep });
        const text = policy!.everyHours === 0 ? 'none' : `every ${policy!.everyHours} h, ${policy!.keep} kept`;
        output.answer(jsonOf(BackupPolicySchema, policy), text);
      }),
    );
}

/** Puts a backup in its database's place, watched. */
async function restore(api: Api, output: Output, backupId: string, keepHours: number | undefined): Promise<void> {
  const { operation } = await api.client(BackupService).restoreBackup({ backupId, keepHours });
  const last = await watchOperation(api, output, operation!.operationId);
  const { replaced_database: replaced } = (last.result ?? {}) as { replaced_database?: string };
  answerEnd(output, last, `${backupId} is restored; ${replaced} holds what it replaced`);
}

/** What came of one organization's backup, or of the metadata's. */
interface Outcome {
  org_id: string;
  backup: unknown;
  metadata?: { archive: string; keys: string; rows: number; sizeBytes: number } | null;
  error: string;
}

async function metadataToo({ home }: Settings): Promise<Outcome> {
  try {
    const made = (await askLocal(['metadata-backup', '--home', home])) as NonNullable<Outcome['metadata']>;
    return { org_id: '', backup: null, metadata: made, error: '' };
  } catch (error) {
    return { org_id: '', backup: null, metadata: null, error: reportOf(error).error };
  }
}

async function create(api: Api, output: Output, orgId: string, schema: string): Promise<Backup> {
  const client = api.client(BackupService);
  const { backup, operation } = await client.createBackup({ orgId, schema });
  const last = await watchOperation(api, output, operation!.operationId);
  if (last.state !== OperationState.SUCCEEDED) throw new CommandFailure(endText(last), EXIT.failed);
  return (await client.getBackup({ backupId: backup!.backupId })).backup!;
}

/** Every organization with a database of that schema that can be read. */
async function everybody(api: Api, schema: string): Promise<string[]> {
  const tenants = await allPages(
    (pageToken) => api.client(TenantService).listTenants({ pageToken }),
    (page) => page.tenants,
  );
  const readable = [TenantState.READY, TenantState.READ_ONLY, TenantState.SUSPENDED];
  return tenants.filter((one) => one.schema === schema && readable.includes(one.state)).map(({ orgId }) => orgId);
}

function answerEnd(output: Output, last: Operation, done: string): void {
  const good = last.state === OperationState.SUCCEEDED;
  output.answer(jsonOf(OperationSchema, last), good ? done : endText(last));
  if (!good) process.exitCode = EXIT.failed;
}

const endText = ({ kind, state, error }: Operation): string =>
  `${kind} ${OperationState[state].toLowerCase()}${error === '' ? '' : `: ${error}`}`;

const HEADINGS = ['backup', 'organization', 'state', 'rows', 'bytes', 'of', 'tried', 'error'];

const timeText = (time: Timestamp | undefined): string => (time === undefined ? '' : timestampDate(time).toISOString());

function row(one: Backup): (string | number)[] {
  const state = BackupState[one.state].toLowerCase();
  const [of, tried] = [one.snapshotTime, one.verifyTime].map(timeText);
  return [one.backupId, one.orgId, state, Number(one.rows), Number(one.sizeBytes), of!, tried!, one.verifyError];
}
