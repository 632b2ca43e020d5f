import { Rounds } from '@mad/process';
import { beginRotation } from './begin.ts';
import type { Held } from '../operations/lease.ts';
import type { Runs } from '../operations/runs.ts';
import { retireLogins, type RetirementOptions } from './retirement.ts';
import type { MasterKeys } from '../secrets/master-keys.ts';
import { rewrapKeys } from '../secrets/rewrap.ts';

/** A tenant whose rotation failed is left alone for this long, so that the others come to their turn. */
const FAILED_REST = '1 hour';
const FAILURE = 'looking after logins and keys failed';

export interface RotationOptions extends RetirementOptions {
  runs: Runs;
  master: MasterKeys;
  leaseMs: number;
  /** A login is replaced when its password is so old; 0: only when asked for. */
  afterDays: number;
  /** Rotations begun per minute at most, over all processes and whoever asked for them. */
  perMinute: number;
  /** Time between two passes, in milliseconds. */
  everyMs: number;
}

/**
 * Replaces the logins with the oldest passwords, ends what is left of replaced ones, and seals keys anew after a change
 * of the master key. Any number of processes may.
 */
export class RotationKeeper {
  readonly #options: RotationOptions;
  readonly #rounds: Rounds;

  constructor(options: RotationOptions) {
    this.#options = options;
    this.#rounds = new Rounds({ ...options, failure: FAILURE }, () => this.#pass());
  }

  close(): Promise<void> {
    return this.#rounds.close();
  }

  async #pass(): Promise<void> {
    const { database, logger, master, runs } = this.#options;
    // Ending what is over needs no key: a service that does not answer keeps no password alive.
    await this.#apart('retiring logins', () => retireLogins(this.#options));
    await this.#apart('sealing keys anew', () => rewrapKeys(database, master, logger));
    await this.#apart('rotating logins', async () => {
      const held = await this.#begin();
      await Promise.all(held.map((one) => runs.carryOut(one)));
    });
  }

  /** One part that fails keeps no other from its turn. */
  async #apart(part: string, fn: () => Promise<unknown>): Promise<void> {
    try {
      await fn();
    } catch (error) {
      this.#options.logger.warn({ part, error }, FAILURE);
    }
  }

  /** Begins what is due and allowed, oldest first. Suspended tenants wait: nobody gets in with their logins anyway. */
  async #begin(): Promise<Held[]> {
    const { database, master, leaseMs, afterDays, perMinute } = this.#options;
    if (afterDays === 0) return [];
    // A new password must be sealed: begun while nobody can, a rotation would fail and rest for an hour.
    await master.standing();
    return database.asSystem(async (tx) => {
      // Processes count one after the other.
      await tx.query(`SELECT pg_advisory_xact_lock(hashtextextended('mad.rotation', 0))`);
      const due = await tx.query<{ org_id: string; schema: string }>(
        `SELECT t.org_id, t.schema FROM provisioner.tenant_credentials c JOIN provisioner.tenants t USING (org_id, schema)
         WHERE c.active AND c.set_at < now() - $1 * interval '1 day' AND t.state IN ('ready', 'read_only')
           AND t.step IS NULL AND NOT EXISTS (SELECT FROM provisioner.operations o
             WHERE o.org_id = t.org_id AND o.schema = t.schema AND o.kind = 'rotate' AND o.state = 'failed'
               AND o.started_at > now() - interval '${FAILED_REST}')
         ORDER BY c.set_at LIMIT greatest(0, $2 - (SELECT count(*) FROM provisioner.operations
           WHERE kind = 'rotate' AND started_at > now() - interval '1 minute'))
         FOR UPDATE OF t SKIP LOCKED`,
        [afterDays, perMinute],
      );
      const held: Held[] = [];
      for (const { org_id: orgId, schema } of due) {
        held.push(await beginRotation(tx, { orgId, schema }, { leaseMs, actor: { actorKind: 'service' } }));
      }
      return held;
    });
  }
}
