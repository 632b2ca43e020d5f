import type { Command } from 'commander';
import { timestampDate, type Timestamp } from '@bufbuild/protobuf/wkt';
import { SECOND_MS, sleep, type Env } from '@mad/process';
import { FleetStatisticsService, TenantHealthSchema, TenantState, type TenantHealth } from '@mad/proto/provisioner';
import { action } from '../command.ts';
import { EXIT } from '../failure.ts';
import { orgIdOf } from '../organization-id.ts';
import { jsonOf, table } from '../output.ts';
import { allPages } from '../pages.ts';
import { asPlatform } from '../session.ts';

const MIB = 2 ** 20;
const WATCH_MS = 5 * SECOND_MS;
const HEADINGS = [
  'organization',
  'server',
  'state',
  'MiB',
  'sessions',
  'version',
  'backup of',
  'restore tried',
  'drift',
  'problem',
];

/** db health: every tenant as the servers and the backups show it. For platform administrators. */
export function tenantHealthCommand(db: Command, env: Env): void {
  db.command('health [organization]')
    .description(
      "every organization's database, or one's (slug or id): size, sessions, version, backups, drift; exit code 1 when something is wrong. It wakes nobody: drift is what the last look found",
    )
    .option('--watch', 'again and again')
    .action(
      action<{ watch?: boolean }>(env, async ({ settings, output, options }, organization) => {
        const { api } = await asPlatform(settings);
        const orgId = organization === undefined ? '' : await orgIdOf(api, organization);
        for (;;) {
          const tenants = await allPages(
            (pageToken) => api.client(FleetStatisticsService).listTenantHealth({ orgId, pageToken }),
            (page) => page.tenants,
          );
          output.answer(
            tenants.map((one) => jsonOf(TenantHealthSchema, one)),
            tenants.length === 0 ? 'none' : table(HEADINGS, tenants.map(row)),
          );
          if (!options.watch) {
            if (tenants.some(({ problem }) => problem !== '')) process.exitCode = EXIT.failed;
            return;
          }
          await sleep(WATCH_MS);
        }
      }),
    );
}

function row(one: TenantHealth): (string | number)[] {
  const { orgId, server, state, sizeBytes, sessions, newest, backupTime, verifyTime, problem } = one;
  return [
    orgId,
    server,
    TenantState[state],
    sizeBytes === undefined ? '' : (Number(sizeBytes) / MIB).toFixed(1),
    sessions ?? '',
    newest === undefined ? '' : newest ? 'newest' : `behind: ${one.schemaVersion}`,
    time(backupTime),
    time(verifyTime),
    drift(one),
    problem,
  ];
}

function drift({ driftTime, driftCount }: TenantHealth): string {
  if (driftTime === undefined) return 'not looked at yet';
  return `${driftCount === undefined ? 'not to be had' : driftCount === 0 ? 'none' : driftCount} at ${time(driftTime)}`;
}

const time = (at: Timestamp | undefined): string => (at === undefined ? 'never' : timestampDate(at).toISOString());
