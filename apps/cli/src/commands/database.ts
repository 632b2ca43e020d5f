import type { Command } from 'commander';
import { uuidv7, type Env } from '@mad/process';
import { PipelineService } from '@mad/proto/catalog';
import { PlatformService } from '@mad/proto/identity';
import {
  RolloutRunSchema,
  RolloutSchema,
  RolloutService,
  TenantSchema,
  TenantService,
  TenantState,
  type Tenant,
} from '@mad/proto/provisioner';
import { action } from '../command.ts';
import { CommandFailure, EXIT } from '../failure.ts';
import { runLocal } from '../local-system.ts';
import { jsonOf, table } from '../output.ts';
import { allPages } from '../pages.ts';
import { asPlatform, type Signed } from '../session.ts';
import { runsLeft, watchRollout } from '../watch-rollout.ts';
import type { GlobalFlags, Settings } from '../settings.ts';
import { driftCommands } from './drift.ts';
import { fleetStatisticsCommands } from './fleet-statistics.ts';
import { tenantHealthCommand } from './tenant-health.ts';
import { labelCommand } from './label.ts';
import { isGood, rolloutCommands, rolloutText } from './rollout.ts';
import { reconcileCommand } from './reconcile.ts';
import { moveCommand } from './move.ts';
import { rotateCommand } from './rotate.ts';
import { tenantIndexCommands } from './tenant-index.ts';
import { serverCommands } from './server.ts';
import { schemaDocsCommand } from './schema-docs.ts';

/**
 * db list, server, why, move, reconcile, rotate, drift, rollout, label, index, erd, migrate, migrate-results, seed, shell, migration:
 * the databases.
 */
export function databaseCommands(mad: Command, env: Env): void {
  const db = mad.command('db').description('databases');
  fleetStatisticsCommands(db, env);
  tenantHealthCommand(db, env);
  db.command('list')
    .description("every tenant's database")
    .action(
      action(env, async ({ settings, output }) => {
        const tenants = await listTenants(await asPlatform(settings));
        const rows = tenants.map((one) => [
          one.orgId,
          one.databaseName,
          TenantState[one.state],
          Number(one.generation),
          one.schemaVersion,
          Number(one.provisionMs),
          one.lastError,
        ]);
        const headings = ['organization', 'database', 'state', 'generation', 'schema version', 'made in ms', 'error'];
        output.answer(
          tenants.map((one) => jsonOf(TenantSchema, one)),
          table(headings, rows),
        );
      }),
    );
  serverCommands(db, env);
  reconcileCommand(db, env);
  rotateCommand(db, env);
  moveCommand(db, env);
  driftCommands(db, env);
  rolloutCommands(db, env);
  labelCommand(db, env);
  tenantIndexCommands(db, env);
  schemaDocsCommand(db, env);
  mad
    .command('migrate')
    .description('bring the metadata database to the newest version')
    .action(
      action(env, async ({ settings }) => {
        await localVerb(settings, ['migrate', '--home', settings.home, ...(settings.json ? ['--json'] : [])]);
      }),
    );
  mad
    .command('migrate-results')
    .description("bring every organization's database to the newest version: a rollout with its defaults, watched")
    .action(
      action(env, async ({ settings, output }) => {
        const platform = await asPlatform(settings);
        const schemas = [...new Set((await listTenants(platform)).map(({ schema }) => schema))].toSorted();
        const rollouts = [];
        for (const schema of schemas) {
          const request = { schema, requestId: uuidv7() };
          const { rollout } = await platform.api.client(RolloutService).startRollout(request);
          rollouts.push(await watchRollout(platform.api, output, rollout!.rolloutId, undefined));
        }
        const runs = (await Promise.all(rollouts.map((one) => runsLeft(platform.api, one.rolloutId)))).flat();
        const ok = rollouts.every(isGood);
        const left = runs.map((one) => `${one.databaseName}: ${one.error}`);
        output.answer(
          {
            ok,
            rollouts: rollouts.map((one) => jsonOf(RolloutSchema, one)),
            runs: runs.map((one) => jsonOf(RolloutRunSchema, one)),
          },
          [...rollouts.map(rolloutText), ...left].join('\n') || 'no organization has a database',
        );
        if (!ok) process.exitCode = EXIT.failed;
      }),
    );
  mad
    .command('seed')
    .description('create what every installation has: roles, task definitions, templates; a repeat changes nothing')
    .action(
      action(env, async ({ settings, output }) => {
        const { api } = await asPlatform(settings);
        const identity = await api.client(PlatformService).seedIdentity({});
        const catalog = await api.client(PipelineService).seedCatalog({});
        const created = identity.created + catalog.created;
        const existing = identity.existing + catalog.existing;
        output.answer({ ok: true, created, existing }, `${created} created, ${existing} already there`);
      }),
    );
  mad
    .command('shell')
    .description(
      "SQL against the metadata database, or with --org an organization's results; from the terminal or stdin",
    )
    .option('--write', 'let statements write; without it they only read')
    .action(
      action<{ write?: boolean }>(env, async ({ settings, options }) => {
        // The flag alone: an organization that was set for other commands must not move the shell elsewhere.
        const { org } = mad.opts<GlobalFlags>();
        await localVerb(settings, [
          'shell',
          '--home',
          settings.home,
          ...(org === undefined ? [] : ['--org', org]),
          ...(options.write ? ['--write'] : []),
          ...(settings.json ? ['--json'] : []),
        ]);
      }),
    );
  mad
    .command('migration <name>')
    .description("scaffold a migration from the difference between a service's entities and its migrations")
    .option('--service <service>', 'identity, catalog or provisioner', 'catalog')
    .action(
      action<{ service: string }>(env, async ({ settings, options }, name) => {
        await localVerb(settings, ['migration', '--home', settings.home, '--service', options.service, name]);
      }),
    );
}

/** Every tenant there is. */
async function listTenants({ api }: Signed): Promise<Tenant[]> {
  return allPages(
    (pageToken) => api.client(TenantService).listTenants({ pageToken }),
    (page) => page.tenants,
  );
}

/** Runs a verb that needs the databases themselves, which only the local system's program can reach. */
export async function localVerb(settings: Settings, args: string[]): Promise<void> {
  refuseRemote(settings);
  process.exitCode = await runLocal(args);
}

/** Throws where the system is not this machine's own. */
export function refuseRemote(settings: Settings): void {
  if (!settings.remote) return;
  throw new CommandFailure('this needs the databases themselves and works on the local system only', EXIT.refused);
}
