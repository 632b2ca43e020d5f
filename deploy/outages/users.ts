import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ServerService, TenantService } from '@mad/proto/provisioner';
import { openApi } from '../../apps/cli/src/api.ts';
import { createSet, readLibrary, registerLibrary, sealSet } from '../../apps/cli/src/commands/molecule.ts';
import { publishPipeline, readPipelineFile } from '../../apps/cli/src/commands/pipeline.ts';
import { EXAMPLES } from '../../apps/cli/src/demo/examples.ts';
import { demoOrganization } from '../../apps/cli/src/demo/members.ts';
import { submitJob, watched } from '../../apps/cli/src/jobs.ts';
import { createOutput } from '../../apps/cli/src/output.ts';
import { allPages } from '../../apps/cli/src/pages.ts';
import { asPlatform, signIn, type Signed } from '../../apps/cli/src/session.ts';
import { readSettings } from '../../apps/cli/src/settings.ts';
import type { User } from './load.ts';

const ASPIRIN = 'CC(=O)Oc1ccccc1C(=O)O';

/** The users of a run, each of an organization of its own, on servers of its own where there are several. */
export interface Users {
  users: User[];
  /** The molecules of each job. */
  items: number;
  /** Whose data a tenant server holds, by the server's name. */
  servers: Map<string, string[]>;
  /** Signs everybody in anew: what they hold is good for ten minutes. */
  refresh(): Promise<void>;
  close(): Promise<void>;
}

/** Makes two organizations in the system at `url`, each with a library, a pipeline and a job that has ended. */
export async function makeUsers(url: string, administrator: { email: string; passwordFile: string }): Promise<Users> {
  const home = await mkdtemp(join(tmpdir(), 'mad-outages-'));
  const settings = readSettings({ MAD_HOME: home }, { url });
  const quiet = createOutput(true);
  const password = (await readFile(administrator.passwordFile, 'utf8')).trim();
  await signIn(settings, { email: administrator.email, password, organization: '' });
  const platform = await asPlatform(settings);
  const rows = await readLibrary(`${EXAMPLES}approved-drugs.smi`);
  const screening = await readPipelineFile(`${EXAMPLES}ligand-screening.json`);
  const stamp = Date.now().toString(36);
  const refreshers: (() => Promise<void>)[] = [];
  const users: User[] = [];
  for (const letter of ['a', 'b']) {
    const organization = await demoOrganization(settings, platform, `outage-${stamp}-${letter}`, quiet);
    const { signed } = organization;
    const { moleculeSetId } = await createSet(signed, 'drugs');
    await registerLibrary(signed, rows, moleculeSetId, () => undefined);
    await sealSet(signed, moleculeSetId);
    const { pipelineId } = await publishPipeline(signed, screening);
    const job = { pipelineId, moleculeSetId, parameters: { reference: ASPIRIN }, name: 'before' };
    const { jobId } = await watched(signed, (await submitJob(signed, job)).jobId, quiet);
    let token = '';
    refreshers.push(async () => {
      token = await organization.accessToken();
    });
    users.push({
      organization: letter.toUpperCase(),
      orgId: signed.orgId,
      pipelineId,
      moleculeSetId,
      reference: ASPIRIN,
      api: openApi(settings.url, () => Promise.resolve(token)),
      endedJobId: jobId,
      signIn: () => organization.accessToken(),
    });
  }
  return {
    users,
    items: rows.length,
    servers: await serversOf(platform, users),
    refresh: async () => {
      for (const refresh of refreshers) await refresh();
    },
    close: () => rm(home, { recursive: true, force: true }),
  };
}

async function serversOf(platform: Signed, users: readonly User[]): Promise<Map<string, string[]>> {
  const servers = await allPages(
    (pageToken) => platform.api.client(ServerService).listServers({ pageToken }),
    (page) => page.servers,
  );
  const whose = new Map<string, string[]>(servers.map(({ name }) => [name, []]));
  for (const { orgId, organization } of users) {
    const { tenants } = await platform.api.client(TenantService).listTenants({ orgId });
    for (const { serverId } of tenants) {
      const server = servers.find((one) => one.serverId === serverId)!;
      whose.get(server.name)!.push(organization);
    }
  }
  return whose;
}
