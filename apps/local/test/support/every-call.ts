import { createClient, type Client, type Interceptor } from '@connectrpc/connect';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { sleep, uuidv7 } from '@mad/process';
import * as catalog from '@mad/proto/catalog';
import * as identity from '@mad/proto/identity';
import * as provisioner from '@mad/proto/provisioner';
import * as results from '@mad/proto/results';
import { grpcTransport } from '@mad/rpc';
import { eventually } from './fleet.ts';
import { gatewayClient, type Person } from './people.ts';
import { ended, IMATINIB } from './science.ts';

/** What the calls are made on: all of it is there. */
export interface CallWorld {
  acme: Person;
  catalogPort: number;
  url: string;
  orgId: string;
  pipelineId: string;
  moleculeSetId: string;
  jobId: string;
}

/** One good call of every method that users call, in an order that works; made on what the organization owns already. */
export async function everyCall(world: CallWorld): Promise<Record<string, () => Promise<unknown>>> {
  const { acme, url, orgId, pipelineId, moleculeSetId, jobId } = world;
  const { client } = acme;
  const by = () => ({ orgId, requestId: uuidv7() });
  const [artifacts, molecules, sets] = [
    client(catalog.ArtifactService),
    client(catalog.MoleculeService),
    client(catalog.MoleculeSetService),
  ];
  const [pipelines, jobs, runs] = [
    client(catalog.PipelineService),
    client(catalog.JobService),
    client(results.JobRunService),
  ];
  const [cache, previews, made] = [
    client(results.CacheService),
    client(catalog.JobPreviewService),
    (await client(results.CacheService).listCacheEntries({ orgId, pageSize: 1 })).entries,
  ];
  const [statistics, retention] = [client(results.JobStatisticsService), client(results.RetentionService)];
  const poses = client(results.PoseService);
  const exports = client(results.ExportService);
  const exportOf = async (): Promise<string> => {
    const format = results.ExportFormat.CSV;
    return (await exports.createExport({ ...by(), jobId, format, filter: 'logp < 100' })).export!.exportId;
  };
  const kept = { orgId, task: made[0]!.task, inputSignature: made[0]!.source!.inputSignature };
  const [organizations, members, roles] = [
    client(identity.OrganizationService),
    client(identity.MemberService),
    client(identity.RoleService),
  ];
  const [tokens, audit, sessions] = [
    client(identity.TokenService),
    client(identity.AuditService),
    client(identity.SessionService),
  ];
  const content = Buffer.from('content');
  const { artifact } = await artifacts.createArtifact({
    ...by(),
    purpose: catalog.ArtifactPurpose.OTHER,
    name: 'a',
    content,
  });
  const { artifactId } = artifact!;
  const [molecule] = (await molecules.listMolecules({ orgId, pageSize: 1 })).molecules;
  const { moleculeId } = molecule!;
  const { moleculeSetId: openSetId } = (await sets.createMoleculeSet({ ...by(), name: 'open' })).moleculeSet!;
  const { member } = await members.addMember({
    ...by(),
    email: 'bob@acme.example',
    displayName: 'Bob',
    password: 'a long password of bob',
    roles: ['user'],
  });
  const { userId } = member!.user!;
  const { role } = await roles.createRole({ ...by(), name: 'chemist', permissions: ['jobs.read'] });
  const { roleId } = role!;
  const { token, secret } = await tokens.createToken({ orgId, name: 'ci' });
  const { tokenId } = token!;
  const email = 'admin@acme.example';
  const login = { email, password: 'password of acme', organization: 'acme', device: 'test' };
  const anybody = gatewayClient(url, identity.SessionService);
  const session = async () => (await anybody.login(login)).tokens!.refreshToken;
  const { spec } = (await pipelines.getPipelineVersion({ orgId, pipelineId, version: 1 })).pipelineVersion!;
  const rows = [{ smiles: 'CCCCO', name: 'butanol' }];
  const parameters = { reference: IMATINIB };
  const { jobId: otherJobId } = (
    await jobs.createJob({ ...by(), pipelineId, moleculeSetId, parameters: { reference: 'CCCCCC' } })
  ).job!;
  await ended(acme, otherJobId);
  const job = () => jobs.createJob({ ...by(), pipelineId, moleculeSetId, parameters, name: `job ${uuidv7()}` });

  /** A list from its start, and the page after. */
  const pages = async (list: (page: { pageSize: number; pageToken: string }) => Promise<{ nextPageToken: string }>) => {
    const { nextPageToken: pageToken } = await list({ pageSize: 5, pageToken: '' });
    if (pageToken !== '') await list({ pageSize: 5, pageToken });
  };

  return {
    'ArtifactService/CreateArtifact': () =>
      artifacts.createArtifact({
        ...by(),
        purpose: catalog.ArtifactPurpose.OTHER,
        name: 'b',
        content: Buffer.from('b'),
      }),
    'ArtifactService/GetArtifact': () => artifacts.getArtifact({ orgId, artifactId }),
    'ArtifactService/ListArtifacts': () => pages((page) => artifacts.listArtifacts({ orgId, ...page })),
    'ArtifactService/DownloadArtifact': () => artifacts.downloadArtifact({ orgId, artifactId }),
    'MoleculeService/RegisterMolecules': () => molecules.registerMolecules({ ...by(), rows, moleculeSetId: openSetId }),
    'MoleculeService/ImportMolecules': () =>
      grpcStream(world, async function* () {
        yield { orgId, moleculeSetId: openSetId, rows };
      }),
    'MoleculeService/GetMolecule': () => molecules.getMolecule({ orgId, moleculeId }),
    'MoleculeService/ListMolecules': async () => {
      await pages((page) => molecules.listMolecules({ orgId, ...page }));
      await pages((page) => molecules.listMolecules({ orgId, query: 'butan', ...page }));
      await pages((page) => molecules.listMolecules({ orgId, inchikey: 'OTMSDBZUPAUEDD-UHFFFAOYSA-N', ...page }));
    },
    'MoleculeService/UpdateMolecule': () =>
      molecules.updateMolecule({ ...by(), moleculeId, name: 'renamed', updateMask: { paths: ['name'] } }),
    'MoleculeSetService/CreateMoleculeSet': () => sets.createMoleculeSet({ ...by(), name: 'another' }),
    'MoleculeSetService/SealMoleculeSet': () => sets.sealMoleculeSet({ orgId, moleculeSetId: openSetId }),
    'MoleculeSetService/GetMoleculeSet': () => sets.getMoleculeSet({ orgId, moleculeSetId }),
    'MoleculeSetService/ListMoleculeSets': () => pages((page) => sets.listMoleculeSets({ orgId, ...page })),
    'MoleculeSetService/ListMoleculeSetMembers': () =>
      pages((page) => sets.listMoleculeSetMembers({ orgId, moleculeSetId, ...page })),
    'PipelineService/CreatePipeline': () => pipelines.createPipeline({ ...by(), name: 'another' }),
    'PipelineService/GetPipeline': () => pipelines.getPipeline({ orgId, pipelineId }),
    'PipelineService/ListPipelines': async () => {
      await pages((page) => pipelines.listPipelines({ orgId, ...page }));
      await pages((page) => pipelines.listPipelines({ orgId, name: 'another', ...page }));
    },
    'PipelineService/CreatePipelineVersion': () => pipelines.createPipelineVersion({ ...by(), pipelineId, spec }),
    'PipelineService/PublishPipelineVersion': async () => {
      const { pipelineVersion } = await pipelines.createPipelineVersion({ ...by(), pipelineId, spec });
      await pipelines.publishPipelineVersion({ ...by(), pipelineId, version: pipelineVersion!.version });
    },
    'PipelineService/GetPipelineVersion': () => pipelines.getPipelineVersion({ orgId, pipelineId, version: 1 }),
    'PipelineService/ListPipelineVersions': () =>
      pages((page) => pipelines.listPipelineVersions({ orgId, pipelineId, ...page })),
    'PipelineService/ListTaskDefinitions': () => pages((page) => pipelines.listTaskDefinitions({ orgId, ...page })),
    'PipelineService/ListPipelineTemplates': () => pages((page) => pipelines.listPipelineTemplates({ orgId, ...page })),
    // To its end: whatever services and worker ask each other about a job is asked.
    'JobService/CreateJob': async () => ended(acme, (await job()).job!.jobId),
    'JobService/GetJob': () => jobs.getJob({ orgId, jobId }),
    'JobService/ListJobs': async () => {
      await pages((page) => jobs.listJobs({ orgId, ...page }));
      await pages((page) => jobs.listJobs({ orgId, state: catalog.JobState.COMPLETED, ...page }));
      await pages((page) => jobs.listJobs({ orgId, state: catalog.JobState.RUNNING, ...page }));
    },
    'JobService/CancelJob': async () => {
      const { jobId: own } = (await job()).job!;
      // It may have ended already, which is told.
      await jobs.cancelJob({ orgId, jobId: own, requestId: uuidv7() }).catch(() => undefined);
      await ended(acme, own);
    },
    'JobRunService/GetJobRun': () => runs.getJobRun({ orgId, jobId }),
    'JobRunService/ListHits': async () => {
      await pages((page) => runs.listHits({ orgId, jobId, ...page }));
      const filter = 'score >= 0.01 AND molecular_weight < 900 AND source = fresh AND rank <= 100';
      await pages((page) => runs.listHits({ orgId, jobId, filter, ...page }));
      await pages((page) => runs.listHits({ orgId, jobId, bestPerMolecule: true, ...page }));
    },
    'JobStatisticsService/GetJobCoverage': () => statistics.getJobCoverage({ orgId, jobId }),
    'JobStatisticsService/GetScoreHistogram': () => statistics.getScoreHistogram({ orgId, jobId }),
    'JobStatisticsService/ListScorePairs': () =>
      pages((page) => statistics.listScorePairs({ orgId, jobId, otherJobId, ...page })),
    'JobStatisticsService/GetScoreAgreement': () => statistics.getScoreAgreement({ orgId, jobId, otherJobId }),
    'OrganizationSummaryService/GetOrganizationSummary': () =>
      client(catalog.OrganizationSummaryService).getOrganizationSummary({ orgId }),
    'OrganizationSummaryService/ListUsage': async () => {
      const summaries = client(catalog.OrganizationSummaryService);
      for (const grouping of [
        catalog.UsageGrouping.MONTH,
        catalog.UsageGrouping.USER,
        catalog.UsageGrouping.MONTH_AND_USER,
      ]) {
        await pages((page) => summaries.listUsage({ orgId, grouping, firstMonth: '2020-01', ...page }));
      }
    },
    'JobRunService/ListWorkItems': async () => {
      await pages((page) => runs.listWorkItems({ orgId, jobId, ...page }));
      await pages((page) => runs.listWorkItems({ orgId, jobId, status: results.WorkStatus.SCORED, ...page }));
    },
    'JobRunService/ListPoses': () => pages((page) => runs.listPoses({ orgId, jobId, itemNo: 1, ...page })),
    // No structure is kept of them, which is told.
    'PoseService/GetPose': () => poses.getPose({ orgId, jobId, itemNo: 1 }).catch(() => undefined),
    'PoseService/DownloadPoses': async () => {
      for await (const piece of poses.downloadPoses({ orgId, jobId })) void piece;
      for await (const piece of poses.downloadPoses({ orgId, jobId, itemNo: [1, 2] })) void piece;
    },
    'ExportService/CreateExport': async () => void (await exportOf()),
    'ExportService/GetExport': async () => {
      const exportId = await exportOf();
      for (;;) {
        const { export: found } = await exports.getExport({ orgId, jobId, exportId });
        if (found!.state !== results.ExportState.RUNNING) break;
        await sleep(50);
      }
    },
    'ExportService/ListExports': () => pages((page) => exports.listExports({ orgId, jobId, ...page })),
    'ExportService/DownloadExport': async () => {
      const exportId = await exportOf();
      const part = { orgId, jobId, exportId, partNo: 1 };
      // Until it is written.
      await eventually('the part is written', async () => {
        for await (const piece of exports.downloadExport(part)) void piece;
        return true;
      });
    },
    'ExportService/DeleteExport': async () =>
      void (await exports.deleteExport({ orgId, jobId, exportId: await exportOf() })),
    'JobRunService/ListJobEvents': () => pages((page) => runs.listJobEvents({ orgId, jobId, ...page })),
    'JobRunService/WatchJob': async () => {
      for await (const message of runs.watchJob({ orgId, jobId })) void message;
    },
    'CacheService/ListCacheEntries': async () => {
      await pages((page) => cache.listCacheEntries({ orgId, ...page }));
      await pages((page) => cache.listCacheEntries({ orgId, task: kept.task, ...page }));
      await pages((page) => cache.listCacheEntries({ orgId, state: results.CacheEntryState.PINNED, ...page }));
    },
    'CacheService/GetCacheEntry': () => cache.getCacheEntry(kept),
    'CacheService/PinCacheEntry': () => cache.pinCacheEntry(kept),
    'CacheService/UnpinCacheEntry': () => cache.unpinCacheEntry(kept),
    'CacheService/ExplainCacheLookUp': () => cache.explainCacheLookUp({ orgId, jobId, itemNo: 1 }),
    'CacheService/GetCacheStatistics': () => cache.getCacheStatistics({ orgId }),
    'CacheService/InvalidateCacheEntries': async () => {
      for (const predicate of [
        { jobId: uuidv7() },
        { smiles: 'C(1)' },
        { task: 'no.task' },
        { engine: 'none' },
        { engine: 'none@1' },
        { computedBefore: timestampFromDate(new Date(0)) },
      ]) {
        await cache.invalidateCacheEntries({ ...by(), predicate, dryRun: true });
        await cache.invalidateCacheEntries({ ...by(), predicate, reason: 'a test' });
      }
    },
    'CacheService/ListCacheInvalidations': () => pages((page) => cache.listCacheInvalidations({ orgId, ...page })),
    'CacheService/UndoCacheInvalidation': async () => {
      const { invalidations } = await cache.listCacheInvalidations({ orgId, pageSize: 1 });
      await cache.undoCacheInvalidation({ orgId, invalidationId: invalidations[0]!.invalidationId });
    },
    'RetentionService/GetRetentionPolicy': () => retention.getRetentionPolicy({ orgId }),
    'RetentionService/SetRetentionPolicy': () => retention.setRetentionPolicy({ ...by(), rules: [{ keepDays: 30 }] }),
    'RetentionService/PreviewRetention': () => retention.previewRetention({ orgId, rules: [{ keepDays: 1000 }] }),
    'RetentionService/ApplyRetention': () => retention.applyRetention(by()),
    'RetentionService/ListRetentionRuns': () => pages((page) => retention.listRetentionRuns({ orgId, ...page })),
    'JobPreviewService/PreviewJob': async () => {
      await previews.previewJob({ orgId, pipelineId, moleculeSetId, parameters, explain: 5 });
      await previews.previewJob({
        orgId,
        pipelineId,
        moleculeIds: [moleculeId],
        parameters: { reference: 'CCN' },
        explain: 5,
      });
    },
    'OrganizationService/GetOrganization': () => organizations.getOrganization({ orgId }),
    'OrganizationService/GetOrganizationSettings': () => organizations.getOrganizationSettings({ orgId }),
    'OrganizationService/UpdateOrganizationSettings': () =>
      organizations.updateOrganizationSettings({ ...by(), config: {} }),
    'MemberService/AddMember': () =>
      members.addMember({
        ...by(),
        email: 'carol@acme.example',
        displayName: 'Carol',
        password: 'a long password of carol',
        roles: ['user'],
      }),
    'MemberService/GetMember': () => members.getMember({ orgId, userId }),
    'MemberService/ListMembers': () => pages((page) => members.listMembers({ orgId, ...page })),
    'MemberService/UpdateMember': () => members.updateMember({ ...by(), userId, roles: ['user', 'chemist'] }),
    'MemberService/RemoveMember': () => members.removeMember({ ...by(), userId }),
    'RoleService/CreateRole': () => roles.createRole({ ...by(), name: 'another', permissions: ['jobs.read'] }),
    'RoleService/ListRoles': () => pages((page) => roles.listRoles({ orgId, ...page })),
    'RoleService/UpdateRole': () => roles.updateRole({ ...by(), roleId, permissions: ['jobs.read', 'molecules.read'] }),
    'RoleService/DeleteRole': () => roles.deleteRole({ ...by(), roleId }),
    'TokenService/CreateToken': () => tokens.createToken({ orgId, name: 'another' }),
    'TokenService/ListTokens': () => pages((page) => tokens.listTokens({ orgId, ...page })),
    'AuditService/ListAuditEvents': async () => {
      await pages((page) => audit.listAuditEvents({ orgId, ...page }));
      await pages((page) => audit.listAuditEvents({ orgId, action: 'jobs.create', ...page }));
    },
    // The copies of rows are no chain: what counts is how it is read.
    'AuditService/VerifyAuditChain': () => audit.verifyAuditChain({ orgId }),
    'SessionService/Login': session,
    'SessionService/RefreshSession': async () => anybody.refreshSession({ refreshToken: await session() }),
    'SessionService/Logout': async () => anybody.logout({ refreshToken: await session() }),
    'SessionService/ExchangeToken': () => anybody.exchangeToken({ token: secret }),
    'SessionService/WhoAmI': () => sessions.whoAmI({}),
    'SessionService/GetJsonWebKeySet': () => anybody.getJsonWebKeySet({}),
    'TokenService/RevokeToken': () => tokens.revokeToken({ orgId, tokenId }),
    'TenantService/GetTenant': () => client(provisioner.TenantService).getTenant({ orgId, schema: 'results' }),
  };
}

/** Client streams need HTTP/2: past the gateway, to catalog itself. */
async function grpcStream(
  { acme, catalogPort }: CallWorld,
  requests: () => AsyncIterable<
    Parameters<Client<typeof catalog.MoleculeService>['importMolecules']>[0] extends AsyncIterable<infer R> ? R : never
  >,
): Promise<unknown> {
  const authorize: Interceptor = (next) => (request) => {
    request.header.set('authorization', `Bearer ${acme.accessToken}`);
    return next(request);
  };
  const transport = grpcTransport(`127.0.0.1:${catalogPort}`, { interceptors: [authorize] });
  try {
    return await createClient(catalog.MoleculeService, transport).importMolecules(requests());
  } finally {
    transport.close();
  }
}
