import { chmod, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Code, ConnectError } from '@connectrpc/connect';
import type { Organization } from '@mad/proto/identity';
import { OrganizationService } from '@mad/proto/identity';
import { TenantState } from '@mad/proto/provisioner';
import { addFirstMember, createOrganization, untilProvisioned } from '../commands/organization.ts';
import { newPassword } from '../commands/session.ts';
import type { Output } from '../output.ts';
import { asMember, signIn, type Login, type Signed } from '../session.ts';
import type { Settings } from '../settings.ts';

/** One organization of the demo and somebody signed in to it. */
export interface DemoOrganization {
  organization: Organization;
  slug: string;
  /** `NONE_YET` where it gets its database with its first job. */
  tenantState: string;
  provisionMs: number;
  signed: Signed;
  /** A fresh access token of the member, for calls that do not go through a client. */
  accessToken(): Promise<string>;
}

type Passwords = Record<string, string>;

/** Creates an organization with its database unless it exists, and signs in as its administrator. */
export async function demoOrganization(
  settings: Settings,
  platform: Signed,
  slug: string,
  output: Output,
): Promise<DemoOrganization> {
  const { organizations } = await platform.api.client(OrganizationService).listOrganizations({ slug });
  const organization = organizations[0] ?? (await createOrganization(platform, { slug, name: slug }));
  const tenant = await untilProvisioned(platform, organization, output);
  const login = await signedInMember(settings, platform, organization);
  return {
    organization,
    slug,
    tenantState: tenant === undefined ? 'NONE_YET' : TenantState[tenant.state],
    provisionMs: Number(tenant?.provisionMs ?? 0),
    signed: await asMember({ ...settings, token: undefined, organization: slug }),
    accessToken: async () => (await signIn(settings, login)).accessToken,
  };
}

/** Signs in as the demo's member; makes one where there is none, or where the password is not known here. */
async function signedInMember(settings: Settings, platform: Signed, { orgId, slug }: Organization): Promise<Login> {
  const path = join(settings.home, 'demo.json');
  const passwords = await readPasswords(path);
  const key = `${settings.url} ${slug}`;
  const known = passwords[key];
  if (known) {
    const [email = '', password = ''] = known.split(' ');
    try {
      const login = { email, password, organization: slug };
      await signIn(settings, login);
      return login;
    } catch (error) {
      if (ConnectError.from(error).code !== Code.Unauthenticated) throw error;
    }
  }
  const email = `demo-${newPassword()
    .slice(0, 6)
    .toLowerCase()
    .replaceAll(/[^a-z0-9]/g, '0')}@${slug}.example`;
  const password = newPassword();
  await addFirstMember(platform, orgId, { email, password });
  await writeFile(path, JSON.stringify({ ...passwords, [key]: `${email} ${password}` }), { mode: 0o600 });
  await chmod(path, 0o600);
  const login = { email, password, organization: slug };
  await signIn(settings, login);
  return login;
}

async function readPasswords(path: string): Promise<Passwords> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Passwords;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
    throw error;
  }
}
