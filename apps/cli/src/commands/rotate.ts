import type { Command } from 'commander';
import { timestampDate } from '@bufbuild/protobuf/wkt';
import { uuidv7, type Env } from '@mad/process';
import { TenantService, TenantState, type Tenant } from '@mad/proto/provisioner';
import { action } from '../command.ts';
import { CommandFailure, EXIT, reportOf } from '../failure.ts';
import { table } from '../output.ts';
import { allPages } from '../pages.ts';
import { progressBar } from '../progress.ts';
import { asPlatform } from '../session.ts';
import { organizationBySlug } from './organization.ts';

/** db rotate: other logins for the organizations' databases. */
export function rotateCommand(db: Command, env: Env): void {
  db.command('rotate [org]')
    .description(
      "give an organization's databases another login with a new password, with no failed query; with --all everybody's",
    )
    .option('--all', 'of every organization that is not suspended, one after another')
    .action(
      action<{ all?: boolean }>(env, async ({ settings, output, options }, slug) => {
        if ((slug === undefined) === (options.all !== true)) {
          throw new CommandFailure('name an organization, or say --all', EXIT.usage);
        }
        const platform = await asPlatform(settings);
        const client = platform.api.client(TenantService);
        const orgId = slug === undefined ? '' : (await organizationBySlug(platform, slug)).orgId;
        const found = await allPages(
          (pageToken) => client.listTenants({ orgId, pageToken }),
          (page) => page.tenants,
        );
        const tenants = slug === undefined ? found.filter(isInUse) : found;
        if (slug !== undefined && tenants.length === 0) {
          throw new CommandFailure(`${slug} has no database`, EXIT.notFound);
        }
        const bar = progressBar(output, 'rotating', tenants.length);
        const outcomes = [];
        for (const [i, { orgId: owner, schema, databaseName }] of tenants.entries()) {
          const outcome = { org_id: owner, database: databaseName, login: '', login_before_ends: '', error: '' };
          try {
            const request = { orgId: owner, schema, requestId: uuidv7() };
            const { login, retireTime } = await client.rotateTenantCredentials(request);
            outcome.login = login;
            if (retireTime !== undefined) outcome.login_before_ends = timestampDate(retireTime).toISOString();
          } catch (error) {
            outcome.error = reportOf(error).error;
          }
          outcomes.push(outcome);
          bar.update(i + 1, databaseName);
        }
        bar.stop();
        const failed = outcomes.filter((one) => one.error !== '');
        const rows = outcomes.map((one) => [one.database, one.login, one.login_before_ends, one.error]);
        output.answer(
          { ok: failed.length === 0, tenants: outcomes },
          table(['database', 'login', 'the one before ends', 'error'], rows),
        );
        if (failed.length > 0) process.exitCode = EXIT.failed;
      }),
    );
}

const isInUse = ({ state }: Tenant): boolean => state === TenantState.READY || state === TenantState.READ_ONLY;
