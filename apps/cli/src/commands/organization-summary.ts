import type { Command } from 'commander';
import type { Env } from '@mad/process';
import { OrganizationSummarySchema, OrganizationSummaryService, type OrganizationSummary } from '@mad/proto/catalog';
import { OrganizationStatus } from '@mad/proto/identity';
import { TenantState } from '@mad/proto/provisioner';
import { action } from '../command.ts';
import { jsonOf, table } from '../output.ts';
import { allPages } from '../pages.ts';
import { asMember, asPlatform } from '../session.ts';
import { hoursOf } from './usage.ts';

const JOB_STATES = ['pending', 'queued', 'running', 'completed', 'failed', 'cancelled'] as const;
const MIB = 2 ** 20;

/** org summary: an organization at a glance, or all of them. */
export function summaryCommand(org: Command, env: Env): void {
  org
    .command('summary')
    .description('jobs by state, quotas and their use, databases of the organization signed in to')
    .option('--all', "every organization's job counts; for platform administrators")
    .action(
      action<{ all?: boolean }>(env, async ({ settings, output, options }) => {
        if (options.all) {
          const { api } = await asPlatform(settings);
          const all = await allPages(
            (pageToken) => api.client(OrganizationSummaryService).listOrganizationSummaries({ pageToken }),
            (page) => page.summaries,
          );
          output.answer(
            all.map((one) => jsonOf(OrganizationSummarySchema, one)),
            summaryTable(all),
          );
          return;
        }
        const { api, orgId } = await asMember(settings);
        const { summary } = await api.client(OrganizationSummaryService).getOrganizationSummary({ orgId });
        output.answer(jsonOf(OrganizationSummarySchema, summary), summaryText(summary!));
      }),
    );
}

/** One line for each organization. */
function summaryTable(summaries: OrganizationSummary[]): string {
  const rows = summaries.map((one) => [
    one.slug,
    statusName(one),
    Number(one.jobs?.total ?? 0n),
    ...JOB_STATES.map((state) => Number(one.jobs?.[state] ?? 0n)),
    Number(one.quotas.find(({ quota }) => quota === 'max_concurrent_jobs')?.limit ?? 0n),
    Number(one.molecules),
    Number(one.members),
  ]);
  return table(['organization', 'status', 'jobs', ...JOB_STATES, 'job limit', 'molecules', 'members'], rows);
}

/** Everything of one organization. */
export function summaryText(summary: OrganizationSummary): string {
  const { slug, name, orgId, jobs, quotas, tenants, tenantsUnavailable, stored, storedUnavailable, usage } = summary;
  const states = JOB_STATES.map((state) => `${jobs?.[state] ?? 0n} ${state}`).join(', ');
  const databases = tenants.map(({ schema, state, schemaVersion, sizeBytes }) => {
    const size = sizeBytes === undefined ? '' : `, ${sizeText(sizeBytes)}`;
    return `database ${schema}: ${TenantState[state]}${size}${schemaVersion ? `, ${schemaVersion}` : ''}`;
  });
  return [
    `${slug} (${name}) ${orgId}: ${statusName(summary)}`,
    `jobs ${jobs?.total ?? 0n}: ${states}`,
    ...(usage ? [`core hours ${hoursOf(usage.coreMs)}, saved by earlier results ${hoursOf(usage.savedCoreMs)}`] : []),
    ...(tenantsUnavailable ? [`databases unknown: ${tenantsUnavailable}`] : databases),
    ...(databases.length === 0 && !tenantsUnavailable ? ['no database yet'] : []),
    ...stored.map(({ purpose, objects, sizeBytes }) => `${purpose} in objects: ${objects}, ${sizeText(sizeBytes)}`),
    ...(storedUnavailable ? [`objects unknown: ${storedUnavailable}`] : []),
    '',
    table(
      ['quota', 'used', 'limit'],
      quotas.map(({ quota, used, limit }) => [quota, Number(used), Number(limit)]),
    ),
  ].join('\n');
}

const sizeText = (bytes: bigint): string =>
  bytes < MIB ? `${(Number(bytes) / 1024).toFixed(1)} KiB` : `${(Number(bytes) / MIB).toFixed(1)} MiB`;

const statusName = ({ status }: OrganizationSummary): string => OrganizationStatus[status].toLowerCase();
