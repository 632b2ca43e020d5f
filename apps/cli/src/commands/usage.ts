import { Option, type Command } from 'commander';
import type { Env } from '@mad/process';
import { OrganizationSummaryService, UsageGrouping, UsageSchema, type Usage } from '@mad/proto/catalog';
import { MemberService } from '@mad/proto/identity';
import { action } from '../command.ts';
import { jsonOf, table } from '../output.ts';
import { allPages } from '../pages.ts';
import { asMember, type Signed } from '../session.ts';

const GROUPINGS = {
  month: UsageGrouping.MONTH,
  user: UsageGrouping.USER,
  both: UsageGrouping.MONTH_AND_USER,
} as const;

const HOUR_MS = 3_600_000;

/** org usage: what the organization's jobs used. */
export function usageCommand(org: Command, env: Env): void {
  org
    .command('usage')
    .description('jobs, molecules, core hours, and what earlier results saved, by month and user')
    .addOption(new Option('--by <groups>', 'month, user, or both').choices(Object.keys(GROUPINGS)).default('month'))
    .option('--from <month>', 'the first month, e.g. 2026-01', '')
    .option('--until <month>', 'the last month', '')
    .option('--limit <n>', 'at most this many lines', Number, 1000)
    .action(
      action<{ by: keyof typeof GROUPINGS; from: string; until: string; limit: number }>(
        env,
        async ({ settings, output, options }) => {
          const signed = await asMember(settings);
          const { by, from: firstMonth, until: lastMonth, limit } = options;
          const request = { orgId: signed.orgId, grouping: GROUPINGS[by], firstMonth, lastMonth };
          const found = await allPages(
            (pageToken) => signed.api.client(OrganizationSummaryService).listUsage({ ...request, pageToken }),
            (page) => page.usage,
            limit,
          );
          const names = by === 'month' || output.json ? new Map<string, string>() : await emails(signed);
          output.answer(
            found.map((one) => jsonOf(UsageSchema, one)),
            usageTable(found, by, names),
          );
        },
      ),
    );
}

/** Members' addresses by id; none for who may not read members. */
async function emails({ api, orgId }: Signed): Promise<Map<string, string>> {
  const members = await allPages(
    (pageToken) => api.client(MemberService).listMembers({ orgId, pageToken }),
    (page) => page.members,
  ).catch(() => []);
  return new Map(members.map(({ user }) => [user!.userId, user!.email]));
}

/** Hours, to three decimals. */
export const hoursOf = (ms: bigint): number => Number((Number(ms) / HOUR_MS).toFixed(3));

/** One line for each group. */
export function usageTable(
  usage: readonly Usage[],
  by: keyof typeof GROUPINGS,
  names: ReadonlyMap<string, string>,
): string {
  const groups = { month: ['month'], user: ['user'], both: ['month', 'user'] }[by];
  const rows = usage.map((one) => {
    const of: Record<string, string> = { month: one.month, user: names.get(one.userId) ?? one.userId };
    const counts = [one.jobs, one.molecules, one.itemsComputed, one.itemsCached, one.itemsFailed].map(Number);
    return [...groups.map((group) => of[group]!), ...counts, hoursOf(one.coreMs), hoursOf(one.savedCoreMs)];
  });
  return table([...groups, 'jobs', 'molecules', 'computed', 'cached', 'failed', 'core hours', 'saved'], rows);
}
