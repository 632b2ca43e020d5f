import { SECOND_MS, type Logger } from '@mad/process';
import { mustBeCarriedThrough, PLANS, stepAfter, type TenantKey } from '../domain/plan.ts';
import { loadSubject, type Findings, type StepContext } from '../provisioning/steps.ts';
import { lockByName } from '../servers/tenant-database.ts';
import { causeOf } from './cause.ts';
import { cancel, fail, succeed, type EndingContext } from './endings.ts';
import { advance, claim, isCancelRequested, LeaseLost, renew, type Held } from './lease.ts';
import { STEPS } from './steps.ts';
import { Cancelled, Gone, Interrupted } from './stops.ts';
import { Turns } from './turns.ts';

export interface RunsOptions extends StepContext, EndingContext {
  logger: Logger;
  /** How long a step may be silent before another run takes over, in milliseconds. */
  leaseMs: number;
}

/** How a run ended: the operation is done, failed, given up, or is another run's or a later one's to go on with. */
export type Outcome =
  | { state: 'done'; findings: Findings }
  | { state: 'failed'; error: unknown }
  | { state: 'cancelled' }
  | { state: 'left' };

/** The runs of operations on tenants in this process. */
export class Runs {
  readonly #options: RunsOptions;
  readonly #running = new Set<Promise<Outcome>>();
  readonly #turns = new Turns();
  readonly #closing = new AbortController();

  constructor(options: RunsOptions) {
    this.#options = options;
  }

  /** Goes on with a tenant's operation if nobody does. */
  async resume(key: TenantKey): Promise<Outcome> {
    const held = await claim(this.#options.database, key, this.#options.leaseMs);
    return held === undefined ? { state: 'left' } : this.carryOut(held);
  }

  /** The same for somebody who waits for none of it, and whom `close` waits for. Never rejects. */
  resumeLater(key: TenantKey): void {
    const resumed = this.resume(key).catch((error: unknown): Outcome => {
      this.#options.logger.warn({ org_id: key.orgId, schema: key.schema, error }, 'going on with a tenant failed');
      return { state: 'left' };
    });
    this.#running.add(resumed);
    void resumed.finally(() => this.#running.delete(resumed));
  }

  /** Carries an operation out, whoever waits for it: it goes on when the caller's request ends. Never rejects. */
  carryOut(held: Held): Promise<Outcome> {
    const run = this.#admitted(held);
    this.#running.add(run);
    void run.finally(() => this.#running.delete(run));
    return run;
  }

  /** Lets steps in progress finish; what follows them is left to the next process. */
  async close(): Promise<void> {
    this.#closing.abort(new Interrupted('the process is closing'));
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  async #admitted(held: Held): Promise<Outcome> {
    const { database, leaseMs, logger } = this.#options;
    const about = { org_id: held.orgId, schema: held.schema, operation: held.kind };
    // While it waits for its turn as well, so that others do not take what is only queued.
    const lost = new AbortController();
    let renewal: Promise<void> | undefined;
    const renewing = setInterval(() => {
      // One at a time: it has a connection for as long as somebody else holds the tenant's row.
      renewal ??= renew(database, held, leaseMs)
        .catch((error: unknown) => {
          if (error instanceof LeaseLost) lost.abort(error);
          else logger.warn({ ...about, error }, 'renewing a lease failed');
        })
        .finally(() => (renewal = undefined));
    }, leaseMs / 3);
    try {
      await this.#turns.take(held.kind, () => this.#isGivenUp(held));
      try {
        return await this.#run(held, lost.signal);
      } finally {
        this.#turns.leave(held.kind);
      }
    } catch (error) {
      logger.error({ ...about, error }, 'a run broke off');
      return { state: 'left' };
    } finally {
      clearInterval(renewing);
    }
  }

  async #run(started: Held, lost: AbortSignal): Promise<Outcome> {
    const { database, connections, leaseMs, logger } = this.#options;
    const about = { org_id: started.orgId, schema: started.schema, operation: started.kind };
    const began = performance.now();
    let held = started;
    try {
      // Before a server is needed that may be away.
      await this.#heedCancel(held);
      const subject = await loadSubject(this.#options, held);
      const findings = await connections.asAdmin(subject.server, async (client) => {
        // A run that lost its lease without knowing may still be at work: it holds this lock until its session ends.
        await lockByName(client, `mad.tenant.${held.schema}.${held.orgId}`, 30 * SECOND_MS);
        await renew(database, held, leaseMs);
        const found: Findings = {};
        const stop = AbortSignal.any([lost, this.#closing.signal]);
        for (;;) {
          stop.throwIfAborted();
          await this.#heedCancel(held);
          Object.assign(found, await STEPS[held.step](this.#options, client, subject, held, stop));
          const next = stepAfter(held.kind, held.step);
          if (next === undefined) return found;
          held = await advance(database, held, next, leaseMs);
        }
      });
      await succeed(this.#options, held, subject, findings);
      logger.info({ ...about, ms: Math.round(performance.now() - began) }, 'tenant operation done');
      return { state: 'done', findings };
    } catch (error) {
      if (error instanceof LeaseLost) {
        logger.warn({ ...about, step: held.step }, 'tenant operation taken over by another run');
        return { state: 'left' };
      }
      if (error instanceof Interrupted) {
        await this.#release(held, '');
        return { state: 'left' };
      }
      if (error instanceof Cancelled) {
        if (!(await this.#undone(held))) return { state: 'left' };
        await cancel(this.#options, held);
        logger.info({ ...about, step: held.step }, 'tenant operation cancelled');
        return { state: 'cancelled' };
      }
      logger.error({ ...about, step: held.step, error }, 'tenant operation failed');
      await this.#fail(held, error);
      return { state: 'failed', error };
    }
  }

  /** Throws Cancelled where the end was asked for of what may still be given up. */
  async #heedCancel(held: Held): Promise<void> {
    if (await this.#isGivenUp(held)) throw new Cancelled('its end was asked for');
  }

  async #isGivenUp(held: Held): Promise<boolean> {
    return !mustBeCarriedThrough(held.kind, held.step) && isCancelRequested(this.#options.database, held);
  }

  /** Gives the tenant back where the plan says how. False where that failed: it is tried again at the next pass. */
  async #undone(held: Held): Promise<boolean> {
    const { connections, database, leaseMs, logger } = this.#options;
    const { undo } = PLANS[held.kind];
    if (undo === undefined) return true;
    try {
      const subject = await loadSubject(this.#options, held);
      await connections.asAdmin(subject.server, async (client) => {
        await lockByName(client, `mad.tenant.${held.schema}.${held.orgId}`, 30 * SECOND_MS);
        await renew(database, held, leaseMs);
        await STEPS[undo](this.#options, client, subject, held, this.#closing.signal);
      });
      return true;
    } catch (error) {
      logger.warn({ org_id: held.orgId, schema: held.schema, operation: held.kind, error }, 'giving back failed');
      await this.#release(held, reasonOf(error));
      return false;
    }
  }

  /** What must be carried through is tried again at the next pass, unless what it works on is gone; the rest ends. */
  async #fail(held: Held, error: unknown): Promise<void> {
    const reason = reasonOf(error);
    const { onFailure, carriedThroughFrom } = PLANS[held.kind];
    const again = carriedThroughFrom !== undefined && mustBeCarriedThrough(held.kind, held.step);
    if (again || (onFailure === 'retry' && !(error instanceof Gone))) return this.#release(held, reason);
    if (!(await this.#undone(held))) return;
    try {
      await fail(this.#options, held, reason, causeOf(error));
    } catch (failure) {
      // The lease ends by itself, and the next run begins at the same step.
      this.#options.logger.warn({ org_id: held.orgId, schema: held.schema, error: failure }, 'noting a failure failed');
    }
  }

  async #release({ orgId, schema, owner }: Held, reason: string): Promise<void> {
    const { database, logger } = this.#options;
    try {
      await database.asSystem((tx) =>
        tx.execute(
          `UPDATE provisioner.tenants SET step_owner = NULL, step_lease_until = NULL, last_error = $4
           WHERE org_id = $1 AND schema = $2 AND step_owner = $3`,
          [orgId, schema, owner, reason],
        ),
      );
    } catch (failure) {
      logger.warn({ org_id: orgId, schema, error: failure }, 'releasing a lease failed');
    }
  }
}

const MAX_REASON_LENGTH = 500;
/** What Postgres says of any change while it takes none. */
const READ_ONLY = '25006';
const READ_ONLY_SERVER = 'the server takes no changes, as a standby or by its setting default_transaction_read_only: ';

/** For `last_error`, read by operators. Postgres's messages name objects, never passwords. */
function reasonOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const isReadOnly = (error as { code?: unknown } | undefined)?.code === READ_ONLY;
  return `${isReadOnly ? READ_ONLY_SERVER : ''}${message}`.slice(0, MAX_REASON_LENGTH);
}
