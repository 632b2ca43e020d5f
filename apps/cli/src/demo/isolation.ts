import { Code, ConnectError, createClient, type CallOptions, type Transport } from '@connectrpc/connect';
import { JobService, MoleculeService, PipelineService } from '@mad/proto/catalog';
import { MemberService, OrganizationService } from '@mad/proto/identity';
import { JobRunService } from '@mad/proto/results';
import { CommandFailure } from '../failure.ts';

/** What belongs to one organization, by its ids. */
export interface Belongings {
  orgId: string;
  userId: string;
  moleculeId: string;
  pipelineId: string;
  jobId: string;
}

/** How each proto service is reached by gRPC. */
export interface GrpcAccess {
  identity: Transport;
  catalog: Transport;
  results: Transport;
}

/** One way to read something of an organization. */
interface Attempt {
  what: string;
  rest: string;
  grpc(access: GrpcAccess, options: CallOptions): Promise<unknown>;
}

/** Organization, members, molecules, pipelines, job, hits and events by their ids, claiming to be `orgId`. */
function attempts(orgId: string, { userId, moleculeId, pipelineId, jobId }: Belongings): Attempt[] {
  const base = `/v1/organizations/${orgId}`;
  return [
    {
      what: 'organization',
      rest: base,
      grpc: (to, o) => createClient(OrganizationService, to.identity).getOrganization({ orgId }, o),
    },
    {
      what: 'member',
      rest: `${base}/members/${userId}`,
      grpc: (to, o) => createClient(MemberService, to.identity).getMember({ orgId, userId }, o),
    },
    {
      what: 'molecule',
      rest: `${base}/molecules/${moleculeId}`,
      grpc: (to, o) => createClient(MoleculeService, to.catalog).getMolecule({ orgId, moleculeId }, o),
    },
    {
      what: 'pipeline',
      rest: `${base}/pipelines/${pipelineId}`,
      grpc: (to, o) => createClient(PipelineService, to.catalog).getPipeline({ orgId, pipelineId }, o),
    },
    {
      what: 'job',
      rest: `${base}/jobs/${jobId}`,
      grpc: (to, o) => createClient(JobService, to.catalog).getJob({ orgId, jobId }, o),
    },
    {
      what: 'run',
      rest: `${base}/jobs/${jobId}/run`,
      grpc: (to, o) => createClient(JobRunService, to.results).getJobRun({ orgId, jobId }, o),
    },
    {
      what: 'hits',
      rest: `${base}/jobs/${jobId}/hits`,
      grpc: (to, o) => createClient(JobRunService, to.results).listHits({ orgId, jobId }, o),
    },
    {
      what: 'events',
      rest: `${base}/jobs/${jobId}/events`,
      grpc: (to, o) => createClient(JobRunService, to.results).listJobEvents({ orgId, jobId }, o),
    },
  ];
}

/** Reads everything as its owner, by REST and by gRPC; throws where one read fails. Answers how many were made. */
export async function readAsOwner(url: string, access: GrpcAccess, token: string, own: Belongings): Promise<number> {
  const tried = attempts(own.orgId, own);
  for (const attempt of tried) {
    const response = await rest(url, attempt.rest, token);
    if (response.status !== 200) {
      throw new CommandFailure(
        `the owner cannot read its ${attempt.what}: HTTP ${response.status} ${await response.text()}`,
      );
    }
    await response.body?.cancel();
    await attempt.grpc(access, authorized(token));
  }
  return tried.length * 2;
}

/**
 * Tries to read everything of another organization, by REST and by gRPC, both naming the other organization and naming
 * the intruder's own with the other's ids. Counts what was denied: only "not found" counts, for "forbidden" would tell
 * that it exists.
 */
export async function readAsStranger(
  url: string,
  access: GrpcAccess,
  stranger: { token: string; orgId: string },
  other: Belongings,
): Promise<{ attempted: number; denied: number; leaks: string[] }> {
  const tried = [
    ...attempts(other.orgId, other),
    // Under its own organization the stranger's organization itself is readable: that is no attempt.
    ...attempts(stranger.orgId, other).filter((attempt) => attempt.what !== 'organization'),
  ];
  const leaks: string[] = [];
  for (const attempt of tried) {
    const response = await rest(url, attempt.rest, stranger.token);
    await response.body?.cancel();
    if (response.status !== 404) leaks.push(`REST ${attempt.rest}: HTTP ${response.status}`);
    const code = await attempt.grpc(access, authorized(stranger.token)).then(
      () => undefined,
      (error: unknown) => ConnectError.from(error).code,
    );
    if (code !== Code.NotFound) leaks.push(`gRPC ${attempt.what}: ${code === undefined ? 'answered' : Code[code]}`);
  }
  const attempted = tried.length * 2;
  return { attempted, denied: attempted - leaks.length, leaks };
}

const authorized = (token: string): CallOptions => ({ headers: { authorization: `Bearer ${token}` } });

const rest = (url: string, path: string, token: string): Promise<Response> =>
  fetch(`${url}${path}`, { headers: { authorization: `Bearer ${token}` } });
