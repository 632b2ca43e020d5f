import { createClient, type Client, type Transport } from '@connectrpc/connect';
import { HOUR_MS, MINUTE_MS, Rounds, SECOND_MS, uuidv7, type Logger } from '@mad/process';
import { RouteService, TenantState } from '@mad/proto/provisioner';
import type { Tenants, TenantTx } from '@mad/tenancy';
import type { RetentionRunRow } from './db/entities/retention.ts';
import { deletesAnything } from './domain/retention.ts';
import { lockRetention } from './runs/retention-lock.ts';
import { beginRun, currentPolicy, openRuns, standingOf, step, type Progress } from './runs/retention.ts';

/** How often it looks whose time has come; tenants themselves are asked only then. */
const ROUND_MS = MINUTE_MS;
const LIST_TIMEOUT_MS = 30 * SECOND_MS;
/** After a start, first looks are spread over this part of the period. */
const FIRST_PART = 1 / 24;

export interface RetentionKeeperOptions {
  tenants: Tenants;
  schema: string;
  /** To the provisioner: its log of changes names every tenant. */
  routes: Transport;
  everyHours: number;
  graceHours: number;
  /** Rows of a job that a step looks at, at most. */
  sliceRows: number;
  roundMs?: number;
  logger: Logger;
}

/**
 * Applies each organization's retention policy by the clock. A tenant is woken once in a period and otherwise left alone;
 * who has no policy costs one query then. Several processes may do so: their steps wait for each other and find nothing
 * left. A run that was cut is gone on with first, whoever began it.
 */
export class RetentionKeeper {
  readonly #options: RetentionKeeperOptions;
  readonly #client: Client<typeof RouteService>;
  /** When each tenant is looked at next. */
  readonly #due = new Map<string, number>();
  /** Tenants that can be written, by the log of changes up to `#seq`. */
  readonly #ready = new Set<string>();
  #seq = 0n;
  readonly #rounds: Rounds;

  constructor(options: RetentionKeeperOptions) {
    this.#options = options;
    this.#client = createClient(RouteService, options.routes);
    const { roundMs = ROUND_MS, logger } = options;
    this.#rounds = new Rounds({ everyMs: roundMs, logger, failure: 'retention was not looked after' }, (signal) =>
      this.#round(signal),
    );
  }

  close(): Promise<void> {
    return this.#rounds.close();
  }

  async #round(signal: AbortSignal): Promise<void> {
    const { everyHours, logger } = this.#options;
    const periodMs = everyHours * HOUR_MS;
    await this.#readChanges(signal);
    for (const orgId of this.#due.keys()) if (!this.#ready.has(orgId)) this.#due.delete(orgId);
    for (const orgId of this.#ready) {
      const due = this.#due.get(orgId) ?? Date.now() + Math.random() * periodMs * FIRST_PART;
      this.#due.set(orgId, due);
      if (due > Date.now() || signal.aborted) continue;
      try {
        await this.#lookAfter(orgId, signal);
      } catch (error) {
        // Suspended meanwhile, busy or out of reach: its next turn comes.
        logger.info({ org_id: orgId, error }, 'retention of an organization has to wait');
      }
      this.#due.set(orgId, Date.now() + periodMs);
    }
  }

  /** Reads the log of changes on to where it stands; one that was set back, by a restore, from its beginning next time. */
  async #readChanges(signal: AbortSignal): Promise<void> {
    const { schema } = this.#options;
    // Leaving the loop does not end the stream; this does.
    const ended = new AbortController();
    const call = { signal: AbortSignal.any([signal, ended.signal]), timeoutMs: LIST_TIMEOUT_MS };
    try {
      for await (const change of this.#client.watchTenantChanges({ schema, afterSeq: this.#seq }, call)) {
        const { orgId, state, seq } = change;
        if (orgId === '') {
          if (seq < this.#seq) this.#forget();
          break;
        }
        this.#seq = seq;
        if (state === TenantState.READY) this.#ready.add(orgId);
        else this.#ready.delete(orgId);
      }
    } finally {
      ended.abort();
    }
  }

  #forget(): void {
    this.#seq = 0n;
    this.#ready.clear();
  }

  async #lookAfter(orgId: string, signal: AbortSignal): Promise<void> {
    const { tenants, graceHours, sliceRows } = this.#options;
    const graceMs = graceHours * HOUR_MS;
    const begun = await tenants.read(orgId, readStanding, { signal });
    const runs = begun.open;
    const { policy } = begun;
    if (policy && deletesAnything(policy.rules) && policy.set_at.getTime() + graceMs <= Date.now()) {
      runs.push(...(await tenants.transact(orgId, beginByClock, { signal })));
    }
    for (const run of runs) {
      let standing: Progress = standingOf(run);
      while (!standing.over && !signal.aborted) {
        const from = standing;
        standing = await tenants.transact(orgId, (tx) => step(tx, from, sliceRows), { signal });
      }
    }
  }
}

/** A run, unless one is under way already: several processes look at the same time. */
async function beginByClock(tx: TenantTx): Promise<RetentionRunRow[]> {
  await lockRetention(tx);
  return (await openRuns(tx)).length > 0 ? [] : [await beginRun(tx, uuidv7(), '')];
}

async function readStanding(tx: TenantTx) {
  return { policy: await currentPolicy(tx), open: await openRuns(tx) };
}
