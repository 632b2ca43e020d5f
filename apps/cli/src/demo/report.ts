import { duration, table } from '../output.ts';

/** One job of the demo. */
export interface JobReport {
  job_id: string;
  org: string;
  pipeline: string;
  state: string;
  requested: number;
  cached: number;
  scored: number;
  failed: number;
  skipped: number;
  cancelled: number;
  pending: number;
  elapsed_ms: number;
}

/** What the demo shows: the last line of `mad demo --json`. */
export interface DemoReport {
  ok: boolean;
  /** Version of the local Postgres; empty on a remote system. */
  postgres: string;
  organizations: { slug: string; org_id: string; tenant_state: string; provision_ms: number }[];
  molecules: { registered: number; rejected: number };
  jobs: JobReport[];
  top_hits: { molecule: string; smiles: string; score: number; units: string }[];
  isolation: { attempted: number; denied: number };
  /** "completed", or why there was none. */
  docking: string;
  elapsed_ms: number;
}

/** The summary for people. */
export function reportText(report: DemoReport): string {
  const { organizations, molecules, jobs, isolation } = report;
  const jobRows = jobs.map((job) => [
    job.pipeline,
    job.state,
    job.requested,
    job.cached,
    job.scored,
    job.failed,
    duration(job.elapsed_ms),
  ]);
  return [
    '',
    `organizations  ${organizations.map((one) => `${one.slug} (${one.tenant_state}, ${one.provision_ms} ms)`).join(', ')}`,
    `molecules      ${molecules.registered} registered, ${molecules.rejected} rejected`,
    `isolation      ${isolation.attempted} attempts from the other organization, ${isolation.denied} denied`,
    `docking        ${report.docking}`,
    '',
    table(['job', 'state', 'requested', 'cached', 'scored', 'failed', 'elapsed'], jobRows),
    '',
    `${report.ok ? 'ok' : 'NOT OK'} in ${duration(report.elapsed_ms)}`,
  ].join('\n');
}
