import type { Command } from 'commander';
import { MINUTE_MS, sleep, uuidv7, type Env } from '@mad/process';
import { OrganizationSchema, OrganizationService, OrganizationStatus, MemberService } from '@mad/proto/identity';
import { TenantSchema, TenantService, TenantState, type Tenant } from '@mad/proto/provisioner';
import type { Organization } from '@mad/proto/identity';
import { action } from '../command.ts';
import { CommandFailure, EXIT } from '../failure.ts';
import { duration, jsonOf, table, type Output } from '../output.ts';
import { allPages } from '../pages.ts';
import { asMember, asPlatform, type Signed } from '../session.ts';
import { summaryCommand } from './organization-summary.ts';
import { usageCommand } from './usage.ts';
import { newPassword } from './session.ts';

const PROVISION_MS = 2 * MINUTE_MS;
const POLL_MS = 50;

/** org create, list, show, summary, suspend, resume. Returns `org`, for what belongs below it. */
export function organizationCommands(mad: Command, env: Env): Command {
  const org = mad.command('org').description('organizations');
  org
    .command('create <slug>')
    .description('create an organization and its database, and wait until it can be used')
    .option('--name <name>', 'display name; default: the slug')
    .option('--region <region>', 'where its data must live')
    .option('--admin <email>', 'its first administrator; a password is made and shown once')
    .action(
      action<{ name?: string; region?: string; admin?: string }>(env, async ({ settings, output, options }, slug) => {
        const platform = await asPlatform(settings);
        const organization = await createOrganization(platform, { slug: slug, ...options });
        const tenant = await untilProvisioned(platform, organization, output);
        const lines = [
          tenant === undefined
            ? `${slug} ${organization.orgId}: its database is made with its first job`
            : `${slug} ${organization.orgId}: ${tenant.databaseName} ready in ${duration(Number(tenant.provisionMs))}`,
        ];
        let administrator: { email: string; password: string } | undefined;
        if (options.admin) {
          administrator = { email: options.admin, password: newPassword() };
          await addFirstMember(platform, organization.orgId, administrator);
          lines.push(`administrator ${administrator.email}, password ${administrator.password}`);
        }
        output.answer(
          {
            organization: jsonOf(OrganizationSchema, organization),
            tenant: tenant === undefined ? null : jsonOf(TenantSchema, tenant),
            administrator,
          },
          lines.join('\n'),
        );
      }),
    );
  org
    .command('list')
    .description('all organizations, newest first')
    .action(
      action(env, async ({ settings, output }) => {
        const { api } = await asPlatform(settings);
        const found = await allPages(
          (pageToken) => api.client(OrganizationService).listOrganizations({ pageToken }),
          (page) => page.organizations,
        );
        const rows = found.map((one) => [one.slug, one.orgId, one.name, OrganizationStatus[one.status].toLowerCase()]);
        output.answer(
          found.map((one) => jsonOf(OrganizationSchema, one)),
          table(['slug', 'organization', 'name', 'status'], rows),
        );
      }),
    );
  org
    .command('show')
    .description('the organization signed in to')
    .action(
      action(env, async ({ settings, output }) => {
        const { api, orgId } = await asMember(settings);
        const { organization } = await api.client(OrganizationService).getOrganization({ orgId });
        const { slug, name, status, quotas } = organization!;
        output.answer(
          jsonOf(OrganizationSchema, organization),
          `${slug} (${name}) ${orgId}: ${OrganizationStatus[status].toLowerCase()}, ` +
            `at most ${quotas?.maxConcurrentJobs} jobs and ${quotas?.maxQueuedTasks} queued tasks`,
        );
      }),
    );
  summaryCommand(org, env);
  usageCommand(org, env);
  const verbs = {
    suspend: 'refuse all use of an organization; nothing is lost',
    'read-only': 'refuse all changes to an organization; reading goes on',
    resume: 'open an organization for all use that is suspended or read-only',
  };
  for (const verb of Object.keys(verbs) as (keyof typeof verbs)[]) {
    org
      .command(`${verb} <slug>`)
      .description(verbs[verb])
      .action(
        action(env, async ({ settings, output }, slug) => {
          const platform = await asPlatform(settings);
          const { orgId } = await organizationBySlug(platform, slug);
          const client = platform.api.client(OrganizationService);
          const request = { orgId, requestId: uuidv7() };
          const { organization } =
            verb === 'suspend'
              ? await client.suspendOrganization(request)
              : verb === 'read-only'
                ? await client.freezeOrganization(request)
                : await client.resumeOrganization(request);
          output.answer(
            jsonOf(OrganizationSchema, organization),
            `${slug} is ${OrganizationStatus[organization!.status].toLowerCase()}`,
          );
        }),
      );
  }
  return org;
}

/** Creates an organization, or finds the one that has the slug already. */
export async function createOrganization(
  platform: Signed,
  { slug, name, region }: { slug: string; name?: string; region?: string },
): Promise<Organization> {
  const request = { requestId: uuidv7(), slug, name: name ?? slug, region: region ?? '' };
  return (await platform.api.client(OrganizationService).createOrganization(request)).organization!;
}

/** The organization with a slug. */
export async function organizationBySlug(platform: Signed, slug: string): Promise<Organization> {
  const { organizations } = await platform.api.client(OrganizationService).listOrganizations({ slug });
  if (!organizations[0]) throw new CommandFailure(`no organization ${slug}`, EXIT.notFound);
  return organizations[0];
}

/**
 * Waits until an organization's results database can be used. Undefined where it gets one only with its first job:
 * such an organization is active without.
 */
export async function untilProvisioned(
  platform: Signed,
  organization: Organization,
  output: Output,
): Promise<Tenant | undefined> {
  let step = '';
  for (const deadline = Date.now() + PROVISION_MS; Date.now() < deadline; await sleep(POLL_MS)) {
    const { tenants } = await platform.api.client(TenantService).listTenants({ orgId: organization.orgId });
    const tenant = tenants[0];
    if (tenant?.state === TenantState.READY) return tenant;
    if (!tenant && organization.status === OrganizationStatus.ACTIVE) return undefined;
    if (tenant && tenant.step !== step) output.note(`… ${organization.slug}: ${(step = tenant.step)}`);
  }
  throw new CommandFailure(`${organization.slug}'s database is not ready yet; see mad db list`, EXIT.unavailable);
}

/** Makes an organization's first administrator. */
export async function addFirstMember(
  platform: Signed,
  orgId: string,
  { email, password }: { email: string; password: string },
): Promise<void> {
  const request = { orgId, requestId: uuidv7(), email, displayName: email.split('@')[0]!, password, roles: ['admin'] };
  await platform.api.client(MemberService).addFirstMember(request);
}
