import type { Command } from 'commander';
import type { Env } from '@mad/process';
import {
  OperationSchema,
  OperationState,
  TenantIndexSchema,
  TenantIndexService,
  type Operation,
} from '@mad/proto/provisioner';
import type { Api } from '../api.ts';
import { action } from '../command.ts';
import { CommandFailure, EXIT } from '../failure.ts';
import { jsonOf, table, type Output } from '../output.ts';
import { allPages } from '../pages.ts';
import { asPlatform, type Signed } from '../session.ts';
import type { GlobalFlags } from '../settings.ts';
import { watchOperation } from '../watch-operation.ts';
import { organizationBySlug } from './organization.ts';

/** db index add, list, drop: indexes that one organization has beside its version's. For platform administrators. */
export function tenantIndexCommands(db: Command, env: Env): void {
  const index = db.command('index').description('indexes one organization has of its own; name it with --org');
  const orgIdOf = async (platform: Signed): Promise<string> => {
    const { org } = index.optsWithGlobals<GlobalFlags>();
    if (org === undefined) throw new CommandFailure('name the organization: --org <slug>', EXIT.usage);
    return (await organizationBySlug(platform, org)).orgId;
  };
  index
    .command('add <name> <table> <columns...>')
    .description('build an index while others write; its name begins with own_, a column may be "score desc"')
    .option('--schema <schema>', 'the tenant schema', 'results')
    .option('--method <method>', 'btree, hash, gin, gist or brin', 'btree')
    .action(
      action<{ schema: string; method: string }>(env, async ({ settings, output, options }, name, on, ...columns) => {
        const platform = await asPlatform(settings);
        const orgId = await orgIdOf(platform);
        const request = { orgId, ...options, name, table: on, columns };
        const { operation } = await platform.api.client(TenantIndexService).createTenantIndex(request);
        await answerEnd(platform.api, output, operation!, `${name} is built`);
      }),
    );
  index
    .command('list')
    .description("indexes organizations have of their own; with --org one organization's")
    .action(
      action(env, async ({ settings, output }) => {
        const platform = await asPlatform(settings);
        const { org } = index.optsWithGlobals<GlobalFlags>();
        const orgId = org === undefined ? '' : await orgIdOf(platform);
        const client = platform.api.client(TenantIndexService);
        const indexes = await allPages(
          (pageToken) => client.listTenantIndexes({ orgId, pageToken }),
          (page) => page.indexes,
        );
        const rows = indexes.map((one) => [one.orgId, one.schema, one.name, one.definition || 'not built']);
        output.answer(
          indexes.map((one) => jsonOf(TenantIndexSchema, one)),
          table(['organization', 'schema', 'index', 'definition'], rows),
        );
      }),
    );
  index
    .command('drop <name>')
    .description('drop one while others read and write')
    .option('--schema <schema>', 'the tenant schema', 'results')
    .action(
      action<{ schema: string }>(env, async ({ settings, output, options }, name) => {
        const platform = await asPlatform(settings);
        const request = { orgId: await orgIdOf(platform), schema: options.schema, name };
        const { operation } = await platform.api.client(TenantIndexService).deleteTenantIndex(request);
        await answerEnd(platform.api, output, operation!, `${name} is dropped`);
      }),
    );
}

async function answerEnd(api: Api, output: Output, { operationId }: Operation, done: string): Promise<void> {
  const last = await watchOperation(api, output, operationId);
  const good = last.state === OperationState.SUCCEEDED;
  output.answer(jsonOf(OperationSchema, last), good ? done : `${last.kind} failed: ${last.error}`);
  if (!good) process.exitCode = EXIT.failed;
}
