import type { Command } from 'commander';
import type { Env } from '@mad/process';
import {
  DifferenceKind,
  DriftService,
  OperationSchema,
  OperationState,
  PlanRepairResponseSchema,
  TenantDriftSchema,
  TenantService,
  type PlanRepairResponse,
  type SchemaDifference,
  type TenantDrift,
} from '@mad/proto/provisioner';
import { action } from '../command.ts';
import { CommandFailure, EXIT } from '../failure.ts';
import { jsonOf, table } from '../output.ts';
import { allPages } from '../pages.ts';
import { progressBar } from '../progress.ts';
import { asPlatform } from '../session.ts';
import type { GlobalFlags } from '../settings.ts';
import { watchOperation } from '../watch-operation.ts';
import { organizationBySlug } from './organization.ts';

const MAX_SQL = 60;

/** db drift, db drift repair: databases that are not what their version makes. For platform administrators. */
export function driftCommands(db: Command, env: Env): void {
  const drift = db
    .command('drift')
    .description(
      "compare every organization's database (or with --org one's) with what its version makes; exit code 1 when one differs",
    )
    .action(
      action(env, async ({ settings, output }) => {
        const platform = await asPlatform(settings);
        const { org } = drift.optsWithGlobals<GlobalFlags>();
        const orgId = org === undefined ? '' : (await organizationBySlug(platform, org)).orgId;
        const client = platform.api.client(DriftService);
        const tenants = await allPages(
          (pageToken) => platform.api.client(TenantService).listTenants({ orgId, pageToken, pageSize: 1000 }),
          (page) => page.tenants,
        );
        const bar = progressBar(output, 'looking at', tenants.length);
        let seen = 0;
        const found = await allPages(
          (pageToken) => client.listDrift({ orgId, pageToken }),
          (page) => {
            bar.update((seen += page.tenants.length));
            return page.tenants;
          },
        );
        bar.stop();
        const bad = found.filter(({ differences, error }) => differences.length > 0 || error !== '');
        output.answer(
          { ok: bad.length === 0, looked_at: found.length, tenants: bad.map((one) => jsonOf(TenantDriftSchema, one)) },
          bad.length === 0
            ? `${found.length} databases, all as their versions make them`
            : `${table(['database', 'version', 'object', 'is', 'should be'], bad.flatMap(rows))}\n\n${bad.length} of ${found.length} differ`,
        );
        if (bad.length > 0) process.exitCode = EXIT.failed;
      }),
    );
  drift
    .command('repair <org>')
    .description('make again what is missing and holds no data; without --apply only says what would run')
    .option('--schema <schema>', 'the tenant schema', 'results')
    .option('--plan', 'say what would run and what is left (the default)')
    .option('--apply', 'run it: indexes are built beside those who write')
    .action(
      action<{ schema: string; plan?: true; apply?: true }>(env, async ({ settings, output, options }, slug) => {
        if (options.plan && options.apply) throw new CommandFailure('say --plan or --apply', EXIT.usage);
        const platform = await asPlatform(settings);
        const { orgId } = await organizationBySlug(platform, slug);
        const key = { orgId, schema: options.schema };
        const client = platform.api.client(DriftService);
        const plan = await client.planRepair(key);
        if (options.apply === undefined || plan.statements.length === 0) {
          output.answer(jsonOf(PlanRepairResponseSchema, plan), planText(plan));
          return;
        }
        output.note(planText(plan));
        const { operation } = await client.repairTenant({ ...key, planDigest: plan.planDigest });
        const last = await watchOperation(platform.api, output, operation!.operationId);
        const good = last.state === OperationState.SUCCEEDED;
        const text = good ? `${plan.statements.length} statements run` : `not repaired: ${last.error}`;
        output.answer(jsonOf(OperationSchema, last), text);
        if (!good) process.exitCode = EXIT.failed;
      }),
    );
}

function rows({ databaseName, schemaVersion, differences, error }: TenantDrift): string[][] {
  if (error !== '') return [[databaseName, schemaVersion, '', `not looked at: ${error}`, '']];
  return differences.map((one) => [databaseName, schemaVersion, nameOf(one), isText(one), shortened(one.expected)]);
}

const nameOf = ({ kind, name }: SchemaDifference): string => `${kind} ${name}`;

const isText = ({ difference, actual }: SchemaDifference): string => {
  const what = DifferenceKind[difference].toLowerCase();
  return actual === '' ? what : `${what}: ${shortened(actual)}`;
};

function shortened(text: string): string {
  const line = text.replace(/\s+/g, ' ').trim();
  return line.length > MAX_SQL ? `${line.slice(0, MAX_SQL)}…` : line;
}

function planText({ statements, left }: PlanRepairResponse): string {
  const run = statements.length === 0 ? 'nothing to run' : statements.map((sql) => `${sql};`).join('\n');
  const rest = left.map(({ difference, why }) => `left: ${nameOf(difference!)} (${isText(difference!)}): ${why}`);
  return [run, ...rest].join('\n');
}
