import { Code, ConnectError } from '@connectrpc/connect';
import { SECOND_MS, sleep, uuidv7 } from '@mad/process';
import { CachePolicy, JobService } from '@mad/proto/catalog';
import { JobRunService } from '@mad/proto/results';
import type { Api } from '../../apps/cli/src/api.ts';

/** After this a call counts as failed. */
const CALL_MS = 10 * SECOND_MS;
const JOB_EVERY_MS = 2 * SECOND_MS;
const READ_EVERY_MS = SECOND_MS / 2;
const SIGN_IN_EVERY_MS = 3 * SECOND_MS;
/** A refused job is submitted again after this, under the same request_id. */
const AGAIN_MS = SECOND_MS / 2;

/** Somebody who works while containers come and go. */
export interface User {
  organization: string;
  api: Api;
  orgId: string;
  pipelineId: string;
  moleculeSetId: string;
  reference: string;
  /** A job that has ended, whose hits are read. */
  endedJobId: string;
  signIn(): Promise<unknown>;
}

/** One call: when it began and ended (ms since the epoch), and what was wrong, if anything. */
export interface Call {
  kind: string;
  began: number;
  ended: number;
  problem?: string;
}

/** What goes on until it is stopped. */
export interface Load {
  calls: Call[];
  /** The jobs that were accepted, by the organization's name. */
  accepted: Map<string, string[]>;
  stop(): Promise<void>;
}

/** Why a call failed, in a word. */
function problemOf(error: unknown): string {
  const { code } = ConnectError.from(error);
  return code === Code.Unknown ? 'no answer' : Code[code].replaceAll(/(?<=[a-z])(?=[A-Z])/g, '_').toUpperCase();
}

async function ready(url: string): Promise<void> {
  const answer = await fetch(`${url}/ready`, { signal: AbortSignal.timeout(CALL_MS) }).catch((error: unknown) => {
    throw new ConnectError('no answer', Code.Unknown, undefined, undefined, error);
  });
  const { degraded } = (await answer.json()) as { degraded?: boolean };
  if (answer.ok && degraded) throw new NotAllIsWell('200, degraded');
  if (!answer.ok) throw new NotAllIsWell(String(answer.status));
}

/** What /ready says that is no error of the call. */
class NotAllIsWell extends Error {}

/**
 * Begins to work: every user submits a job every two seconds and reads hits twice a second; the first one signs in
 * every three seconds and asks `/ready` twice a second. A job whose submission failed is submitted again under the same
 * request_id until it is accepted. Jobs bear the name `name`, and compute everything anew.
 */
export function startLoad(url: string, users: readonly User[], name: string): Load {
  const calls: Call[] = [];
  const accepted = new Map<string, string[]>(users.map(({ organization }) => [organization, []]));
  const stopping = new AbortController();

  /** Makes one call and notes how it went. */
  async function note(kind: string, call: () => Promise<unknown>): Promise<boolean> {
    const began = Date.now();
    try {
      await call();
      calls.push({ kind, began, ended: Date.now() });
      return true;
    } catch (error) {
      const problem = error instanceof NotAllIsWell ? error.message : problemOf(error);
      calls.push({ kind, began, ended: Date.now(), problem });
      return false;
    }
  }

  async function every(periodMs: number, act: () => Promise<unknown>): Promise<void> {
    while (!stopping.signal.aborted) {
      const next = Date.now() + periodMs;
      await act();
      await sleep(Math.max(0, next - Date.now()), stopping.signal).catch(() => undefined);
    }
  }

  async function submit({ organization, api, orgId, pipelineId, moleculeSetId, reference }: User): Promise<void> {
    const request = {
      orgId,
      pipelineId,
      moleculeSetId,
      name,
      requestId: uuidv7(),
      parameters: { reference },
      cachePolicy: CachePolicy.BYPASS,
    };
    const once = () =>
      note(`jobs of ${organization}`, async () => {
        const { job } = await api.client(JobService).createJob(request, { timeoutMs: CALL_MS });
        accepted.get(organization)!.push(job!.jobId);
      });
    while (!(await once()) && !stopping.signal.aborted) await sleep(AGAIN_MS);
  }

  const loops = users.flatMap((user, i) => [
    every(JOB_EVERY_MS, () => submit(user)),
    every(READ_EVERY_MS, () => {
      const request = { orgId: user.orgId, jobId: user.endedJobId, pageSize: 10 };
      const hits = () => user.api.client(JobRunService).listHits(request, { timeoutMs: CALL_MS });
      return note(`hits of ${user.organization}`, hits);
    }),
    ...(i > 0
      ? []
      : [
          every(SIGN_IN_EVERY_MS, () => note('sign-in', () => user.signIn())),
          every(READ_EVERY_MS, () => note('/ready', () => ready(url))),
        ]),
  ]);
  return {
    calls,
    accepted,
    async stop() {
      stopping.abort();
      await Promise.all(loops);
    },
  };
}
