import { readFile } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import type { Command } from 'commander';
import { timestampDate } from '@bufbuild/protobuf/wkt';
import type { Env } from '@mad/process';
import {
  PlannedMoveSchema,
  ServerSchema,
  ServerService,
  VerdictSchema,
  type PlannedMove,
  type Server,
  type Verdict,
} from '@mad/proto/provisioner';
import { action } from '../command.ts';
import { CommandFailure, EXIT } from '../failure.ts';
import { runLocal } from '../local-system.ts';
import { jsonOf, table } from '../output.ts';
import { allPages } from '../pages.ts';
import { orgIdOf } from '../organization-id.ts';
import { asPlatform } from '../session.ts';

const MIB = 2 ** 20;
const PARTS = ['tenants', 'size', 'connections', 'load'] as const;

interface Limits {
  budget?: number;
  maxTenants?: number;
  reserve?: number;
}

/** db server list, prepare, register, update, label, drain, undrain, standbys, rebalance; db why. */
export function serverCommands(db: Command, env: Env): void {
  const server = db.command('server').description("the servers that hold organizations' databases");
  server
    .command('list')
    .description('every server: what it holds, what it may hold, how it fares')
    .action(
      action(env, async ({ settings, output }) => {
        const { api } = await asPlatform(settings);
        const found = await allPages(
          (pageToken) => api.client(ServerService).listServers({ pageToken }),
          (page) => page.servers,
        );
        output.answer(
          found.map((one) => jsonOf(ServerSchema, one)),
          table(HEADINGS, found.map(row)),
        );
      }),
    );
  server
    .command('prepare')
    .description(
      "give a new server the roles organizations' databases need: the superuser's URL by standard input, the passwords for `register --passwords -` on standard output",
    )
    .option('--passwords <file>', 'of a server that was prepared before, which gets what this release needs')
    .action(
      action<{ passwords?: string }>(env, async ({ options }) => {
        const { passwords } = options;
        if (passwords !== undefined) await passwordsIn(passwords);
        process.exitCode = await runLocal([
          'prepare-server',
          ...(passwords === undefined ? [] : ['--passwords', passwords]),
        ]);
      }),
    );
  withLimits(
    server
      .command('register <name>')
      .description('register a prepared server; a repeat brings it to this address, these passwords and limits')
      .requiredOption('--host <host>', 'host name or address')
      .requiredOption('--region <region>', 'where it stands: tenants never leave it')
      .requiredOption(
        '--passwords <file>',
        'JSON with provisioner_password and migrator_password; - reads standard input',
      )
      .option('--port <port>', 'TCP port', Number, 5432)
      .option('--sslmode <mode>', 'verify-full, no-verify or disable; default: in clear on loopback only', '')
      .option('--label <name=value...>', 'free labels', [])
      .option('--no-check', 'register it even if it does not answer yet'),
  ).action(
    action<
      Limits & {
        host: string;
        region: string;
        passwords: string;
        port: number;
        sslmode: string;
        label: string[];
        check: boolean;
      }
    >(env, async ({ settings, output, options }, name) => {
      const { api } = await asPlatform(settings);
      const { host, region, port, sslmode, check, budget, maxTenants, reserve } = options;
      const { server: made } = await api.client(ServerService).registerServer({
        name,
        host,
        region,
        port,
        sslmode,
        check,
        connectionBudget: budget,
        maxTenants,
        reservedConnections: reserve,
        labels: labelsOf(options.label),
        ...(await passwordsIn(options.passwords)),
      });
      output.answer(jsonOf(ServerSchema, made), table(HEADINGS, [row(made!)]));
    }),
  );
  withLimits(server.command('update <name>').description("change a server's limits")).action(
    action<Limits>(env, async ({ settings, output, options }, name) => {
      const { api } = await asPlatform(settings);
      const { budget: connectionBudget, maxTenants, reserve: reservedConnections } = options;
      const request = { name, connectionBudget, maxTenants, reservedConnections };
      const { server: changed } = await api.client(ServerService).updateServer(request);
      output.answer(jsonOf(ServerSchema, changed), table(HEADINGS, [row(changed!)]));
    }),
  );
  server
    .command('label <name> <label...>')
    .description('set labels as name=value; name= takes one away')
    .action(
      action(env, async ({ settings, output }, name, ...labels) => {
        const { api } = await asPlatform(settings);
        const { server: changed } = await api
          .client(ServerService)
          .updateServer({ name, labels: labelsOf(labels.flat()) });
        output.answer(jsonOf(ServerSchema, changed), table(HEADINGS, [row(changed!)]));
      }),
    );
  for (const [verb, described] of [
    ['drain', 'let it take no new organizations and no stock; what is there stays and works'],
    ['undrain', 'let it take organizations again'],
  ] as const) {
    server
      .command(`${verb} <name>`)
      .description(described)
      .action(
        action(env, async ({ settings, output }, name) => {
          const { api } = await asPlatform(settings);
          const { server: changed } = await api.client(ServerService).drainServer({ name, undo: verb === 'undrain' });
          output.answer(jsonOf(ServerSchema, changed), table(HEADINGS, [row(changed!)]));
        }),
      );
  }
  server
    .command('standbys <name> [address...]')
    .description(
      "say where a server's standbys are, as host:port: when one of them is promoted, everybody is led there; none at all forgets them",
    )
    .option('--no-check', 'take them even if they do not answer yet')
    .option('--sslmode <mode>', 'verify-full, no-verify or disable; default: in clear on loopback only', '')
    .action(
      action<{ check: boolean; sslmode: string }>(env, async ({ settings, output, options }, name, ...addresses) => {
        const { api } = await asPlatform(settings);
        const standbys = addresses.flat().map((address) => ({ ...placeOf(address), sslmode: options.sslmode }));
        const request = { name, standbys, check: options.check };
        const { server: changed } = await api.client(ServerService).setServerStandbys(request);
        const places = changed!.standbys.map(({ host, port }) => `${host}:${port}`);
        const text = places.length === 0 ? `${name} has no standbys` : `${name}: ${places.join(', ')}`;
        output.answer(jsonOf(ServerSchema, changed), text);
      }),
    );
  server
    .command('rebalance')
    .description('what to move so that drained servers become empty and the others equally full')
    .option('--dry-run', 'needed: the plan is shown, nothing is moved')
    .option('--max-moves <n>', 'how many moves to plan at most', Number, 100)
    .action(
      action<{ dryRun?: true; maxMoves: number }>(env, async ({ settings, output, options }) => {
        if (options.dryRun === undefined) {
          throw new CommandFailure('this only plans: say --dry-run, and move tenants one by one', EXIT.usage);
        }
        const { api } = await asPlatform(settings);
        const { moves, stuck, unmeasured } = await api
          .client(ServerService)
          .planRebalance({ maxMoves: options.maxMoves });
        const lines = [
          moves.length === 0 ? 'nothing to move' : table(MOVE_HEADINGS, moves.map(moveRow)),
          ...stuck.map(
            (one) => `${one.databaseName} has nowhere to go from ${one.from}: no server of its region has room`,
          ),
          ...unmeasured.map((name) => `${name} does not answer: sizes there are unknown`),
        ];
        output.answer(
          {
            moves: moves.map((one) => jsonOf(PlannedMoveSchema, one)),
            stuck: stuck.map((one) => jsonOf(PlannedMoveSchema, one)),
            unmeasured,
          },
          lines.join('\n'),
        );
      }),
    );
  db.command('why <organization>')
    .description("why an organization's database (slug or id) was put on its server: every server's score then")
    .option('--schema <schema>', 'the tenant schema', 'results')
    .action(
      action<{ schema: string }>(env, async ({ settings, output, options }, organization) => {
        const { api } = await asPlatform(settings);
        const orgId = await orgIdOf(api, organization);
        const why = await api.client(ServerService).whyHere({ orgId, schema: options.schema });
        const when = timestampDate(why.placeTime!).toISOString();
        const { weights } = why;
        const headings = ['server', 'score', ...PARTS.map((part) => `${part} × ${weights[part] ?? 0}`), 'verdict'];
        const rows = why.verdicts.map((one) => verdictRow(one, why.server));
        output.answer(
          {
            server: why.server,
            region: why.region,
            placed_at: when,
            weights,
            verdicts: why.verdicts.map((one) => jsonOf(VerdictSchema, one)),
          },
          `put on ${why.server} in ${why.region} at ${when}\n\n${table(headings, rows)}`,
        );
      }),
    );
}

function withLimits(command: Command): Command {
  return command
    .option('--budget <n>', 'connections all nodes together may hold to it', Number)
    .option('--max-tenants <n>', 'how many organizations it may hold', Number)
    .option('--reserve <n>', 'connections beside the budget, for administration and migrations', Number);
}

/** `host:port`, an IPv6 address in brackets. */
function placeOf(address: string): { host: string; port: number } {
  const [, host = '', port = ''] = /^(.+):(\d{1,5})$/.exec(address) ?? [];
  if (host === '') throw new CommandFailure(`${JSON.stringify(address)} is no host:port`, EXIT.usage);
  return { host: host.replace(/^\[(.*)\]$/, '$1'), port: Number(port) };
}

function labelsOf(texts: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    texts.map((text) => {
      const at = text.indexOf('=');
      if (at <= 0) throw new CommandFailure(`${JSON.stringify(text)} is no label: write name=value`, EXIT.usage);
      return [text.slice(0, at), text.slice(at + 1)];
    }),
  );
}

/** Never on the command line, where every process of the machine could read them. */
async function passwordsIn(file: string): Promise<{ provisionerPassword: string; migratorPassword: string }> {
  let found: { provisioner_password?: unknown; migrator_password?: unknown };
  try {
    found = JSON.parse(await (file === '-' ? text(process.stdin) : readFile(file, 'utf8'))) as typeof found;
  } catch {
    // Not what it said: that may quote the file.
    throw new CommandFailure(`--passwords: ${file} is no JSON that can be read`, EXIT.usage);
  }
  const { provisioner_password: provisionerPassword, migrator_password: migratorPassword } = found;
  if (typeof provisionerPassword !== 'string' || typeof migratorPassword !== 'string') {
    throw new CommandFailure('--passwords: needs provisioner_password and migrator_password', EXIT.usage);
  }
  return { provisionerPassword, migratorPassword };
}

const HEADINGS = [
  'server',
  'address',
  'region',
  'organizations',
  'at most',
  'stock',
  'budget',
  'reserve',
  'sessions',
  'MiB',
  'state',
  'labels',
];

function row(one: Server): (string | number)[] {
  const labels = Object.entries(one.labels).map(([name, value]) => `${name}=${value}`);
  return [
    one.name,
    `${one.host}:${one.port}`,
    one.region,
    one.tenants,
    one.maxTenants,
    one.stock,
    one.connectionBudget,
    one.reservedConnections,
    `${one.sessions}/${one.maxConnections}`,
    Math.round(Number(one.sizeBytes) / MIB),
    one.error || (one.draining ? 'drained' : one.sampleTime === undefined ? 'not looked at yet' : 'ok'),
    labels.sort().join(' '),
  ];
}

const MOVE_HEADINGS = ['organization', 'database', 'MiB', 'from', 'to', 'because'];

function moveRow(one: PlannedMove): (string | number)[] {
  const because = one.reason === 'draining' ? `${one.from} is drained` : 'to even out';
  return [one.orgId, one.databaseName, Math.round(Number(one.sizeBytes) / MIB), one.from, one.to, because];
}

const REFUSALS: Readonly<Record<string, string>> = {
  other_region: 'in another region',
  draining: 'drained',
  full: 'full',
  unreachable: 'did not answer',
};

function verdictRow({ server, score, parts, refused }: Verdict, taken: string): string[] {
  const said = server === taken ? 'taken' : refused === '' ? 'a higher score' : (REFUSALS[refused] ?? refused);
  const number = (value: number | undefined): string => (value === undefined ? '' : value.toFixed(3));
  return [server, refused === '' ? number(score) : '', ...PARTS.map((part) => number(parts[part])), said];
}
