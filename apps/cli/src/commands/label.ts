import type { Command } from 'commander';
import type { Env } from '@mad/process';
import { TenantSchema, TenantService } from '@mad/proto/provisioner';
import { action } from '../command.ts';
import { CommandFailure, EXIT } from '../failure.ts';
import { jsonOf } from '../output.ts';
import { asPlatform } from '../session.ts';
import { organizationBySlug } from './organization.ts';

const LABEL = /^[a-z][a-z0-9_-]{0,62}$/;

/** db label: what operators note of a database, e.g. that rollouts begin with it. */
export function labelCommand(db: Command, env: Env): void {
  db.command('label <org> [labels...]')
    .description("set labels (name or name=value) or remove them (name-); rollouts begin with 'staging', then 'canary'")
    .option('--schema <schema>', 'the tenant schema', 'results')
    .action(
      action<{ schema: string }>(env, async ({ settings, output, options }, slug, ...given) => {
        const labels: Record<string, string> = {};
        const remove: string[] = [];
        for (const one of given) {
          const [name = '', value = ''] = one.endsWith('-') ? [one.slice(0, -1)] : one.split(/=(.*)/s, 2);
          if (!LABEL.test(name)) throw new CommandFailure(`${one}: is not name, name=value or name-`, EXIT.usage);
          if (one.endsWith('-')) remove.push(name);
          else labels[name] = value;
        }
        const platform = await asPlatform(settings);
        const { orgId } = await organizationBySlug(platform, slug);
        const request = { orgId, schema: options.schema, labels, remove };
        const { tenant } = await platform.api.client(TenantService).labelTenant(request);
        const now = Object.entries(tenant!.labels).map(([name, value]) => (value === '' ? name : `${name}=${value}`));
        output.answer(jsonOf(TenantSchema, tenant), `${tenant!.databaseName}: ${now.join(' ') || 'no label'}`);
      }),
    );
}
