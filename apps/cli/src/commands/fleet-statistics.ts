import type { Command } from 'commander';
import type { Env } from '@mad/process';
import {
  FleetStatisticsService,
  ListConnectionsResponseSchema,
  ListDatabaseSizesResponseSchema,
  ListSlowStatementsResponseSchema,
  StatementOrder,
} from '@mad/proto/provisioner';
import { action } from '../command.ts';
import { CommandFailure, EXIT } from '../failure.ts';
import { jsonOf, table } from '../output.ts';
import { asPlatform } from '../session.ts';

const MAX_TEXT = 100;
const ORDERS: Record<string, StatementOrder> = { total: StatementOrder.TOTAL_TIME, mean: StatementOrder.MEAN_TIME };

/** db slow, connections, sizes: what the Postgres servers say of themselves. For platform administrators. */
export function fleetStatisticsCommands(db: Command, env: Env): void {
  const server = ['--server <name>', 'only this server; "metadata" is the metadata database'] as const;
  db.command('slow')
    .description('the statements that take most time, of the metadata database and each server (pg_stat_statements)')
    .option(...server)
    .option('--by <order>', 'total: all calls together; mean: one call', 'total')
    .option('--limit <n>', 'how many of each server, 1-100', Number, 10)
    .action(
      action<{ server?: string; by: string; limit: number }>(env, async ({ settings, output, options }) => {
        const order = ORDERS[options.by];
        if (order === undefined) throw new CommandFailure(`--by ${options.by}: total or mean`, EXIT.usage);
        const { api } = await asPlatform(settings);
        const request = { server: options.server ?? '', order, limit: limitOf(options.limit, 100) };
        const answer = await api.client(FleetStatisticsService).listSlowStatements(request);
        const text = answer.servers.map(({ server: name, statements, unavailable }) => {
          const rows = statements.map((one) => [
            one.totalMs.toFixed(1),
            one.meanMs.toFixed(3),
            Number(one.calls),
            Number(one.rows),
            one.databases,
            shortened(one.text),
          ]);
          const headings = ['total ms', 'mean ms', 'calls', 'rows', 'databases', 'statement'];
          return section(name, unavailable, table(headings, rows));
        });
        output.answer(jsonOf(ListSlowStatementsResponseSchema, answer), text.join('\n\n'));
      }),
    );
  db.command('connections')
    .description('who is connected to the metadata database and each server, beside budget and reserve')
    .option(...server)
    .action(
      action<{ server?: string }>(env, async ({ settings, output, options }) => {
        const { api } = await asPlatform(settings);
        const request = { server: options.server ?? '' };
        const answer = await api.client(FleetStatisticsService).listConnections(request);
        const text = answer.servers.map((one) => {
          const budget = one.budget === 0 ? '' : `, budget of tenants ${one.budget}`;
          const title = `${one.server}: ${one.open} open, ${one.maxConnections} at most, ${one.reserved} reserved${budget}`;
          const rows = one.groups.map((group) => [
            group.database,
            group.state,
            group.program,
            group.login,
            group.count,
            group.waitingForLock,
            group.longestSeconds.toFixed(1),
          ]);
          const headings = ['database', 'state', 'program', 'login', 'count', 'wait for lock', 'longest s'];
          return section(one.unavailable === '' ? title : one.server, one.unavailable, table(headings, rows));
        });
        output.answer(jsonOf(ListConnectionsResponseSchema, answer), text.join('\n\n'));
      }),
    );
  db.command('sizes')
    .description('databases by size, the largest first')
    .option(...server)
    .option('--limit <n>', 'how many, 1-1000', Number, 50)
    .option('--after <token>', 'the next page: what the page before printed')
    .action(
      action<{ server?: string; limit: number; after?: string }>(env, async ({ settings, output, options }) => {
        const { api } = await asPlatform(settings);
        const answer = await api.client(FleetStatisticsService).listDatabaseSizes({
          server: options.server ?? '',
          pageSize: limitOf(options.limit, 1000),
          pageToken: options.after ?? '',
        });
        const rows = answer.databases.map((one) => [one.server, one.database, one.orgId, mebibytes(one.bytes)]);
        const notes = [`all databases together: ${mebibytes(answer.totalBytes)} MiB`];
        for (const name of answer.unavailableServers) notes.push(`${name}: the server does not answer`);
        if (answer.nextPageToken !== '') notes.push(`more: --after ${answer.nextPageToken}`);
        const headings = ['server', 'database', 'organization', 'MiB'];
        output.answer(jsonOf(ListDatabaseSizesResponseSchema, answer), [table(headings, rows), ...notes].join('\n'));
      }),
    );
}

function limitOf(limit: number, most: number): number {
  if (Number.isInteger(limit) && limit >= 1 && limit <= most) return limit;
  throw new CommandFailure(`--limit: a whole number from 1 to ${most}`, EXIT.usage);
}

function section(title: string, unavailable: string, body: string): string {
  return `${title}\n${unavailable === '' ? body : unavailable}`;
}

function shortened(text: string): string {
  const line = text.replace(/\s+/g, ' ').trim();
  return line.length > MAX_TEXT ? `${line.slice(0, MAX_TEXT)}…` : line;
}

function mebibytes(bytes: bigint): number {
  return Math.round(Number(bytes) / 104_857.6) / 10;
}
