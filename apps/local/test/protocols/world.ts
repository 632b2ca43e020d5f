import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServiceTokenSigner } from '@mad/auth';
import { createLogger, uuidv7 } from '@mad/process';
import { ArtifactPurpose, ArtifactService, JobService, PipelineService } from '@mad/proto/catalog';
import { MemberService } from '@mad/proto/identity';
import { OperationService } from '@mad/proto/provisioner';
import type { DescService } from '@bufbuild/protobuf';
import { startLocal, type LocalSystem } from '../../src/start.ts';
import { newOrganization, signIn } from '../support/people.ts';
import { alkanes, ended, library, submit } from '../support/science.ts';
import type { As, ProtocolClient } from './case.ts';

/** A whole system with one organization, a job that has ended and one that waits. */
export interface World {
  orgId: string;
  userId: string;
  artifactId: string;
  moleculeSetId: string;
  pipelineId: string;
  /** Properties of ten alkanes, completed. */
  jobId: string;
  /** What made the organization's database. */
  operationId: string;
  /** Docking, for which this system has no engine: never begun. */
  waitingJobId: string;
  /** `as` acting: the authorization header, undefined for nobody. */
  authorization(as: As): string | undefined;
  /** Where a service listens for a client, `host:port`. */
  addressOf(service: DescService, at: ProtocolClient['at']): string;
  close(): Promise<void>;
}

export const MOLECULES = 10;
const PASSWORD = 'a password of twelve';
const task = (id: string, name: string, parameters = {}) => ({
  version: '1',
  tasks: [{ id, task: name, inputs: { molecules: 'job.molecules' }, parameters }],
});

/** Starts the system and does the work the cases look at. */
export async function startWorld(): Promise<World> {
  const home = await mkdtemp(join(tmpdir(), 'mad-protocols-'));
  const logger = createLogger('protocols', { level: 'silent' });
  const system = await startLocal({
    home,
    logger,
    anyPorts: true,
    // Without programs to find there is no docking engine.
    outer: { PATH: home },
    postgresSettings: { fsync: 'off' },
  });
  const close = async () => {
    await system.close();
    await rm(home, { recursive: true, force: true });
  };
  try {
    return { ...(await populate(system)), close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Between two looks at the services' tokens. */
const RENEW_MS = 30_000;

async function populate(system: LocalSystem): Promise<Omit<World, 'close'>> {
  const { url, secrets, ports } = system;
  const platform = await signIn(url, secrets.administrator);
  const { admin } = await newOrganization(url, platform, 'acme');
  const { orgId } = admin;
  const by = () => ({ orgId, requestId: uuidv7() });
  const email = 'user@acme.example';
  const added = { ...by(), email, displayName: 'Zoë Müller', password: PASSWORD, roles: ['user'] };
  const { member } = await admin.client(MemberService).addMember(added);
  const user = await signIn(url, { email, password: PASSWORD, organization: 'acme' });

  const pipelines = admin.client(PipelineService);
  const publish = async (name: string, spec: ReturnType<typeof task>): Promise<string> => {
    const { pipelineId } = (await pipelines.createPipeline({ ...by(), name })).pipeline!;
    await pipelines.createPipelineVersion({ ...by(), pipelineId, spec });
    await pipelines.publishPipelineVersion({ ...by(), pipelineId, version: 1 });
    return pipelineId;
  };
  const moleculeSetId = await library(admin, alkanes(MOLECULES));
  const pipelineId = await publish('Eigenschaften (β)', task('properties', 'rdkit.properties'));
  const { jobId } = await submit(admin, { pipelineId, moleculeSetId, parameters: {} });

  const artifacts = admin.client(ArtifactService);
  const note = { ...by(), purpose: ArtifactPurpose.OTHER, name: 'note', content: Buffer.from('one two') };
  const { artifactId } = (await artifacts.createArtifact(note)).artifact!;
  const atom = 'ATOM      1  C   LIG A   1       0.000   0.000   0.000  1.00  0.00     0.000 C \n';
  const receptor = { ...by(), purpose: ArtifactPurpose.RECEPTOR, name: 'r', content: Buffer.from(atom) };
  const place = { center_x: 0, center_y: 0, center_z: 0, size_x: 10, size_y: 10, size_z: 10 };
  const docking = task('dock', 'vina.dock', {
    ...place,
    receptor: (await artifacts.createArtifact(receptor)).artifact!.artifactId,
  });
  const waiting = { ...by(), pipelineId: await publish('Docking', docking), moleculeSetId, parameters: {} };
  const { jobId: waitingJobId } = (await admin.client(JobService).createJob(waiting)).job!;
  await ended(admin, jobId);
  const { operations } = await platform.client(OperationService).listOperations({ orgId, kind: 'provision' });

  const tokens: Partial<Record<As, string>> = { forger: 'eyJhbGciOiJub25lIn0.e30.' };
  for (const [as, person] of Object.entries({ admin, user, platform })) tokens[as as As] = person.accessToken;
  const signers = (['identity', 'catalog', 'results', 'provisioner', 'gateway', 'worker'] as const).map((service) => {
    const { privateJwk } = secrets.signingKeys[service];
    return { service, sign: createServiceTokenSigner({ service, privateJwk }) };
  });
  const renew = async (): Promise<void> => {
    for (const { service, sign } of signers) tokens[service] = await sign();
  };
  await renew();
  // They live for five minutes, which all the calls of all the clients may take on a busy machine.
  setInterval(() => void renew(), RENEW_MS).unref();
  return {
    orgId,
    userId: member!.user!.userId,
    artifactId,
    moleculeSetId,
    pipelineId,
    jobId,
    operationId: operations[0]!.operationId,
    waitingJobId,
    authorization: (as) => (tokens[as] === undefined ? undefined : `Bearer ${tokens[as]}`),
    addressOf: (service, at) => {
      if (at === 'gateway') return `127.0.0.1:${ports.gateway}`;
      const { port, connectPort } = ports[ownerOf(service)];
      return `127.0.0.1:${at === 'grpc' ? port : connectPort}`;
    },
  };
}

/** Which service answers a proto service; health and reflection are everybody's. */
function ownerOf({ typeName }: DescService): 'identity' | 'catalog' | 'results' | 'provisioner' {
  if (typeName.startsWith('mad.identity.')) return 'identity';
  if (typeName.startsWith('mad.provisioner.')) return 'provisioner';
  // Identity serves it as well.
  if (typeName === 'mad.tenancy.v1.OrganizationErasureService') return 'catalog';
  if (typeName.startsWith('mad.results.') || typeName.startsWith('mad.tenancy.')) return 'results';
  return 'catalog';
}
