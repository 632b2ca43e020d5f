import { createGrpcWebTransport } from '@connectrpc/connect-node';
import { openChemistry } from '@mad/chemistry';
import { MoleculeSetService, type Job } from '@mad/proto/catalog';
import { MemberService } from '@mad/proto/identity';
import { grpcTransport } from '@mad/rpc';
import { readLibrary, type LibraryRow } from '../commands/molecule.ts';
import { publishPipeline, readPipelineFile } from '../commands/pipeline.ts';
import { CommandFailure } from '../failure.ts';
import { readLocalState, startLocalSystem } from '../local-system.ts';
import { duration, type Output } from '../output.ts';
import { asPlatform } from '../session.ts';
import { readSettings, type Settings } from '../settings.ts';
import { dockingOf } from './docking.ts';
import { EXAMPLES } from './examples.ts';
import { readAsOwner, readAsStranger, type GrpcAccess } from './isolation.ts';
import { demoOrganization, type DemoOrganization } from './members.ts';
import type { DemoReport } from './report.ts';
import { register, runJob, showHits } from './run-job.ts';

const IMATINIB = 'Cc1ccc(NC(=O)c2ccc(CN3CCN(C)CC3)cc2)cc1Nc1nccc(-c2cccnc2)n1';
/** Rows that must be refused: not a SMILES, a carbon of five bonds, a Cyrillic letter. */
const BAD_ROWS: LibraryRow[] = [
  { smiles: 'not-a-molecule', name: 'nonsense' },
  { smiles: 'C(C)(C)(C)(C)C', name: 'pentavalent carbon' },
  { smiles: 'CC\u041e', name: 'ethanol with a Cyrillic O' },
];

/** Runs the main job end to end; see README. Throws where a step fails. */
export async function runDemo(given: Settings, output: Output, docking: string): Promise<DemoReport> {
  const began = Date.now();
  const settings = await systemOf(given, output);
  const platform = await asPlatform(settings);
  output.note('creating organizations acme and globex, each with a database of its own');
  const acme = await demoOrganization(settings, platform, 'acme', output);
  const globex = await demoOrganization(settings, platform, 'globex', output);
  for (const one of [acme, globex])
    output.note(`  ${one.slug}: ${one.tenantState} (made in ${duration(one.provisionMs)})`);

  const stamp = new Date().toISOString();
  const drugs = await readLibrary(`${EXAMPLES}approved-drugs.smi`);
  const library = await register(acme, `approved drugs ${stamp}`, [...drugs, ...BAD_ROWS], output);
  const screening = await publishPipeline(acme.signed, await readPipelineFile(`${EXAMPLES}ligand-screening.json`));
  const screen = (setId: string, name: string) =>
    runJob(acme, { pipelineId: screening.pipelineId, setId, name, parameters: { reference: IMATINIB } }, output);

  output.note(`screening ${drugs.length} drugs by their similarity to imatinib`);
  const first = await screen(library.setId, 'similarity to imatinib');
  const { hits, names } = await showHits(acme, first.job, output);

  const dock = await dockingOf(acme, settings, docking, stamp, output);

  output.note('the same job again, every SMILES spelled differently');
  const respelled = await register(acme, `respelled ${stamp}`, await respell(drugs), output);
  const again = await screen(respelled.setId, 'similarity to imatinib, respelled');
  output.note(`  ${again.report.cached} of ${again.report.requested} answered from earlier results`);

  const isolation = await proveIsolation(settings, acme, globex, first.job, output);
  const jobs = [first.report, ...(dock.report ? [dock.report] : []), again.report];
  const complete = jobs.every((job) => job.state === 'completed' && job.failed === 0);
  return {
    ok: complete && again.report.cached === again.report.requested && isolation.denied === isolation.attempted,
    postgres: (settings.remote ? undefined : readLocalState(settings.home)?.postgres.version) ?? '',
    organizations: [acme, globex].map((one) => ({
      slug: one.slug,
      org_id: one.organization.orgId,
      tenant_state: one.tenantState,
      provision_ms: one.provisionMs,
    })),
    molecules: { registered: library.registered + dock.registered, rejected: library.rejected },
    jobs,
    top_hits: hits.map((hit) => ({
      molecule: names.get(hit.moleculeId) ?? hit.moleculeId,
      smiles: hit.smiles,
      score: hit.score!,
      units: hit.scoreUnits,
    })),
    isolation,
    docking: dock.outcome,
    elapsed_ms: Date.now() - began,
  };
}

/** The named system, or the local one, started if none runs. */
async function systemOf(settings: Settings, output: Output): Promise<Settings> {
  if (settings.remote) return settings;
  output.note('starting the system on this machine');
  await startLocalSystem(settings.home, { onPhase: (phase) => output.note(`  ${phase}`) });
  return readSettings({}, { home: settings.home, json: settings.json });
}

/** The same molecules, each in another spelling where it has one. */
async function respell(rows: LibraryRow[]): Promise<LibraryRow[]> {
  const chemistry = openChemistry({ workers: 1 });
  try {
    return await Promise.all(
      rows.map(async ({ smiles, name }, i) => {
        const spelled = await chemistry.respell(smiles, i + 1);
        if ('reason' in spelled) throw new CommandFailure(`${name}: ${spelled.message}`);
        return { name, smiles: spelled.smiles };
      }),
    );
  } finally {
    await chemistry.close();
  }
}

/** Reads everything of acme as acme, then tries as globex. */
async function proveIsolation(
  settings: Settings,
  acme: DemoOrganization,
  globex: DemoOrganization,
  job: Job,
  output: Output,
) {
  const { signed } = acme;
  const { orgId } = signed;
  const { members } = await signed.api.client(MemberService).listMembers({ orgId });
  const inputs = await signed.api
    .client(MoleculeSetService)
    .listMoleculeSetMembers({ orgId, moleculeSetId: job.moleculeSetId, pageSize: 1 });
  const own = {
    orgId,
    userId: members[0]!.user!.userId,
    moleculeId: inputs.members[0]!.moleculeId,
    pipelineId: job.pipelineId,
    jobId: job.jobId,
  };
  const { access, close } = grpcAccess(settings);
  try {
    const read = await readAsOwner(settings.url, access, await acme.accessToken(), own);
    output.note(
      `acme reads its own organization, members, molecules, pipelines, job, hits and events: ${read} of ${read}`,
    );
    const stranger = { token: await globex.accessToken(), orgId: globex.signed.orgId };
    const { attempted, denied, leaks } = await readAsStranger(settings.url, access, stranger, own);
    output.note(`globex tries the same ids: ${denied} of ${attempted} denied`);
    for (const leak of leaks) output.note(`  NOT DENIED: ${leak}`);
    return { attempted, denied };
  } finally {
    close();
  }
}

/** gRPC straight to the services where their ports are known, else gRPC-web through the gateway; each call brings its token. */
function grpcAccess(settings: Settings): { access: GrpcAccess; close: () => void } {
  const services = settings.remote ? undefined : readLocalState(settings.home)?.services;
  if (!services) {
    const transport = createGrpcWebTransport({ baseUrl: settings.url, httpVersion: '1.1' });
    return { access: { identity: transport, catalog: transport, results: transport }, close: () => undefined };
  }
  const open = (service: string) => grpcTransport(`127.0.0.1:${services[service]!.port}`);
  const access = { identity: open('identity'), catalog: open('catalog'), results: open('results') };
  return { access, close: () => Object.values(access).forEach((transport) => transport.close()) };
}
