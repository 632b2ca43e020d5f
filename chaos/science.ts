import { MINUTE_MS } from '@mad/process';
import { JobState } from '@mad/proto/catalog';
import { brokenInvariants } from '../apps/local/test/support/invariants.ts';
import type { Person } from '../apps/local/test/support/people.ts';
import { alkanes, ended, examplePipeline, IMATINIB, library, submit } from '../apps/local/test/support/science.ts';
import type { ChaosSystem, ChaosOrganization } from './system.ts';
import { insist } from './system.ts';

/** Molecules of a job: three tasks of the example's chunk, at the worker for a second or two. */
export const ITEMS = 300;
const END_MS = 4 * MINUTE_MS;
const LONGEST = 300;

const WORKER_LOST = 'WORKER_LOST';

/** How a job ended. */
export interface Judged {
  /** Items without an outcome. */
  lost: number;
  /** Items that have failed because their task lost three workers. */
  givenUp: number;
  doubled: number;
  gaps: number;
  problems: string[];
}

/** An organization that screens libraries no earlier job has seen, so that nothing comes from the cache. */
export class Screening {
  readonly org: ChaosOrganization;
  readonly #system: ChaosSystem;
  readonly #pipelineId: string;
  #tail = 0;

  private constructor(system: ChaosSystem, org: ChaosOrganization, pipelineId: string) {
    this.#system = system;
    this.org = org;
    this.#pipelineId = pipelineId;
  }

  static async of(system: ChaosSystem): Promise<Screening> {
    const org = await system.newOrganization();
    const pipelineId = await examplePipeline(await system.member(org), 'ligand-screening.json');
    return new Screening(system, org, pipelineId);
  }

  person(): Promise<Person> {
    return this.#system.member(this.org);
  }

  /** Submits a job over new molecules while everything is alive; answers its id. */
  async begin(): Promise<string> {
    const { jobId } = await this.order(await this.fresh());
    return jobId;
  }

  /** A library of new molecules. */
  async fresh(): Promise<string> {
    this.#tail += 1;
    const smiles = alkanes(ITEMS).map((alkane) => `${alkane}N${'C'.repeat(this.#tail % LONGEST)}`);
    return library(await this.person(), smiles);
  }

  async order(moleculeSetId: string) {
    const job = { pipelineId: this.#pipelineId, moleculeSetId, parameters: { reference: IMATINIB } };
    return submit(await this.person(), job);
  }

  /** What `JobService.createJob` takes beside ids. */
  requestOf(moleculeSetId: string) {
    return { orgId: this.org.orgId, pipelineId: this.#pipelineId, moleculeSetId, parameters: { reference: IMATINIB } };
  }

  /** Waits for the job's end; answers how it is not what it must be. */
  async judged(jobId: string): Promise<Judged> {
    const { orgId } = this.org;
    const job = await ended(await this.person(), jobId, END_MS);
    const problems: string[] = [];
    const rows = await this.#system.inside<{ status: string; error: string; times: number }>(
      orgId,
      `SELECT min(status::text) AS status, min(error_class) AS error, count(*)::int AS times FROM results.task_results
       WHERE job_id = $1 GROUP BY task_id, item_no`,
      jobId,
    );
    // Three workers lost with a task are taken for its doing: its items fail, and say so.
    const givenUp = rows.filter(({ status, error }) => status === 'failed' && error === WORKER_LOST).length;
    const others = new Set(rows.filter(({ error }) => error !== '' && error !== WORKER_LOST).map(({ error }) => error));
    if (others.size > 0) problems.push(`job ${jobId}: items failed: ${[...others].join(', ')}`);
    if (job.state !== JobState.COMPLETED && givenUp === 0) problems.push(`job ${jobId} is ${JobState[job.state]}`);
    const [events] = await this.#system.inside<{ missing: number; doubled: number }>(
      orgId,
      `SELECT (coalesce(max(seq_no), 0) - count(DISTINCT seq_no))::int AS missing, (count(*) - count(DISTINCT seq_no))::int AS doubled
       FROM results.job_events WHERE job_id = $1`,
      jobId,
    );
    const [tenant] = await this.#system.metadata<{ server: string; database: string }>(
      `SELECT s.name AS server, t.database_name AS database FROM provisioner.tenants t
       JOIN provisioner.database_servers s USING (server_id) WHERE t.org_id = $1`,
      orgId,
    );
    const databaseUrl = (database: string): string =>
      database === tenant!.database
        ? this.#system.databaseUrl(tenant!.server, database)
        : this.#system.fleet.databaseUrl(database);
    const broken = await insist(() =>
      brokenInvariants({ ...this.#system.fleet, databaseUrl }, tenant!.database, jobId, ITEMS),
    );
    problems.push(...broken.map((claim) => `job ${jobId}: not so: ${claim}`));
    return {
      lost: ITEMS - rows.filter(({ status }) => status === 'scored' || status === 'cached').length - givenUp,
      givenUp,
      doubled: rows.filter(({ times }) => times > 1).length + events!.doubled,
      gaps: events!.missing,
      problems,
    };
  }
}
