import { OrganizationService } from '@mad/proto/identity';
import type { Api } from './api.ts';
import { CommandFailure, EXIT } from './failure.ts';
import { allPages } from './pages.ts';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** The organization of a slug or an id. Throws when there is none. */
export async function orgIdOf(api: Api, organization: string): Promise<string> {
  if (UUID.test(organization)) return organization;
  const all = await allPages(
    (pageToken) => api.client(OrganizationService).listOrganizations({ pageToken }),
    (page) => page.organizations,
  );
  const found = all.find(({ slug }) => slug === organization);
  if (found === undefined) throw new CommandFailure(`no organization is named ${organization}`, EXIT.notFound);
  return found.orgId;
}
