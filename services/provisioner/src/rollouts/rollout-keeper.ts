import type { Database } from '@mad/postgres';
import { Rounds, SECOND_MS, sleep, uuidv7, type Logger } from '@mad/process';
import { ROLLOUT_COLUMNS, type RolloutRow } from '../db/entities/rollout.ts';
import { SERVER_COLUMNS, type ServerRow } from '../db/entities/server.ts';
import { absenceHalts, failuresHalt, STAGING_WAVE, type RolloutState } from '../domain/rollout.ts';
import type { LookContext } from '../drift/look.ts';
import type { Runs } from '../operations/runs.ts';
import type { ServerConnections } from '../servers/server-connections.ts';
import { checkFleet } from './check-fleet.ts';
import { move } from './control.ts';
import { beginRuns, countWaves, settleRuns, type WaveCounts } from './runs-of-rollout.ts';

/** How soon the end of an operation in another process is seen; of one in this process at once. */
const POLL_MS = SECOND_MS / 4;
/** Asked so often before a server is called slow: one answer may be slow for any reason. */
const PROBES = 3;
/** Of tenants that were out of reach, begun in one look. */
const CAUGHT_UP_AT_ONCE = 4;

export interface RolloutOptions extends LookContext {
  database: Database;
  connections: ServerConnections;
  runs: Runs;
  logger: Logger;
  leaseMs: number;
  /** Time between two looks, in milliseconds. */
  everyMs: number;
}

/**
 * Drives rollouts, each by one process at a time: begins the operations of a wave, waits for them, judges, goes on to the
 * next. Where it stands is in the rows alone, so that another process goes on wherever one died. Then brings on tenants
 * that were out of reach when their rollout passed.
 */
export class RolloutKeeper {
  readonly #options: RolloutOptions;
  readonly #rounds: Rounds;
  readonly #me = uuidv7();
  readonly #closing = new AbortController();
  readonly #driving = new Map<string, Promise<void>>();
  readonly #sleeping = new Set<() => void>();

  constructor(options: RolloutOptions) {
    this.#options = options;
    this.#rounds = new Rounds({ ...options, failure: 'driving rollouts failed' }, () => this.#pass());
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#rounds.close();
    await Promise.all(this.#driving.values());
  }

  /** An operation has ended: somebody's turn may have come. */
  readonly #wake = (): void => {
    for (const wake of this.#sleeping) wake();
    this.#sleeping.clear();
  };

  /** Begins to drive what waits for it, without waiting for the next look: somebody has begun or resumed one. */
  look(): void {
    this.#driveAll().catch((error: unknown) => this.#options.logger.warn({ error }, 'driving rollouts failed'));
  }

  async #pass(): Promise<void> {
    await this.#catchUp();
    await this.#driveAll();
  }

  async #driveAll(): Promise<void> {
    const { database, logger } = this.#options;
    const waiting = await database.asSystem((tx) =>
      tx.query<{ rollout_id: string }>(
        `SELECT rollout_id FROM provisioner.migration_rollouts r
         WHERE (driver IS NULL OR driver_until <= now()) AND (state = 'running' OR EXISTS (
           SELECT FROM provisioner.migration_runs WHERE rollout_id = r.rollout_id AND state = 'running'))
         ORDER BY created_at`,
      ),
    );
    // Not waited for: one may take a day, and others begin meanwhile.
    for (const { rollout_id: rolloutId } of waiting) {
      if (this.#driving.has(rolloutId) || this.#closing.signal.aborted) continue;
      const driven = this.#drive(rolloutId, this.#closing.signal)
        .catch((error: unknown) => logger.warn({ rollout_id: rolloutId, error }, 'a drive broke off'))
        .finally(() => this.#driving.delete(rolloutId));
      this.#driving.set(rolloutId, driven);
    }
  }

  async #drive(rolloutId: string, signal: AbortSignal): Promise<void> {
    const { logger, leaseMs } = this.#options;
    if ((await this.#take(rolloutId)) === undefined) return;
    const renewing = new Rounds(
      {
        everyMs: leaseMs / 3,
        logger: logger.child({ rollout_id: rolloutId }),
        failure: 'renewing the lease on a rollout failed',
      },
      () => this.#take(rolloutId),
    );
    try {
      while (!signal.aborted) {
        const next = await this.#step(rolloutId);
        if (next === 'over') return;
        if (next === 'again') continue;
        const woken = new Promise<void>((resolve) => this.#sleeping.add(resolve));
        await Promise.race([woken, sleep(POLL_MS, signal).catch(() => undefined)]);
      }
    } finally {
      await renewing.close();
      await this.#leave(rolloutId);
    }
  }

  /** One look at a rollout, and what is to be done about it now. */
  async #step(rolloutId: string): Promise<'again' | 'wait' | 'over'> {
    const { database, leaseMs } = this.#options;
    const rollout = await this.#take(rolloutId);
    if (rollout === undefined) return 'over';
    await settleRuns(database, rollout);
    const waves = await countWaves(database, rolloutId);
    const running = waves.reduce((sum, one) => sum + one.running, 0);
    if (rollout.state !== 'running') return running > 0 ? 'wait' : 'over';
    const { direction, rules } = rollout;
    if (direction === 'up' && !rollout.checked) return this.#check(rollout);

    const left = waves.filter((one) => one.pending + one.running > 0);
    const current = direction === 'up' ? left[0] : left.at(-1);
    // What is stored is the wave that was begun last: it is judged before the next one begins.
    const judged = waves.find(({ wave }) => wave === rollout.wave);
    const why = judged && direction === 'up' ? failuresHalt(judged.wave, judged, rules) : undefined;
    if (why !== undefined) {
      if (running > 0) return 'wait';
      return this.#end(rollout, 'halted', why);
    }
    if (current === undefined || current.wave !== rollout.wave) {
      if (running > 0) return 'wait';
      return this.#nextWave(rollout, waves, current);
    }
    const from = { state: 'pending', wave: current.wave, limit: rules.concurrency - running } as const;
    for (const held of await beginRuns(database, rollout, from, leaseMs)) {
      void this.#options.runs.carryOut(held).then(this.#wake);
    }
    return 'wait';
  }

  async #check(rollout: RolloutRow): Promise<'again'> {
    const { database } = this.#options;
    const stop = async (): Promise<boolean> => (await this.#take(rollout.rollout_id))?.state !== 'running';
    const why = await checkFleet(this.#options, rollout, stop);
    if (await stop()) return 'again';
    if (why !== undefined) return this.#end(rollout, 'halted', why);
    await database.asSystem((tx) =>
      tx.execute('UPDATE provisioner.migration_rollouts SET checked = true, updated_at = now() WHERE rollout_id = $1', [
        rollout.rollout_id,
      ]),
    );
    return 'again';
  }

  /** A wave is over: on to the next one, or to the end. */
  async #nextWave(rollout: RolloutRow, waves: readonly WaveCounts[], next: WaveCounts | undefined): Promise<'again'> {
    const { database } = this.#options;
    const { rollout_id: rolloutId, direction, rules, wave, verified } = rollout;
    if (direction === 'up') {
      const judged = waves.filter((one) => one.wave === wave || (next === undefined && one.succeeded + one.queued > 0));
      const absent = judged.find((one) => absenceHalts(one.wave, one, rules) !== undefined);
      if (absent !== undefined) return this.#end(rollout, 'halted', absenceHalts(absent.wave, absent, rules)!);
      const slow = await this.#slowServer(rollout);
      if (slow !== undefined) return this.#end(rollout, 'halted', slow);
      if (wave === STAGING_WAVE && rules.verification && !verified) {
        return this.#end(rollout, 'waiting', 'somebody must report whether the tenants labelled staging are well');
      }
    }
    if (next !== undefined) {
      await database.asSystem((tx) =>
        tx.execute(
          `UPDATE provisioner.migration_rollouts SET wave = $3, updated_at = now()
           WHERE rollout_id = $1 AND driver = $2 AND state = 'running' AND direction = $4`,
          [rolloutId, this.#me, next.wave, direction],
        ),
      );
      return 'again';
    }
    if (direction === 'up') return this.#end(rollout, 'succeeded', '');
    const failed = (await countWaves(database, rolloutId)).reduce((sum, one) => sum + one.failed, 0);
    if (failed > 0) return this.#end(rollout, 'halted', `${failed} could not be taken back`);
    return this.#end(rollout, 'rolled_back', '');
  }

  /** What can be seen from here of how its tenants fare: whether a server of the wave takes long to answer. */
  async #slowServer({ rollout_id: rolloutId, wave, rules }: RolloutRow): Promise<string | undefined> {
    const { database, connections } = this.#options;
    const servers = await database.asSystem((tx) =>
      tx.query<ServerRow>(
        `SELECT ${SERVER_COLUMNS} FROM provisioner.database_servers WHERE server_id IN (
           SELECT t.server_id FROM provisioner.migration_runs r JOIN provisioner.tenants t USING (org_id, schema)
           WHERE r.rollout_id = $1 AND r.wave = $2 AND r.operation_id IS NOT NULL)`,
        [rolloutId, wave],
      ),
    );
    for (const server of servers) {
      let best = Infinity;
      for (let probe = 0; probe < PROBES && best > rules.max_latency_ms; probe += 1) {
        // One that is away is not slow: its tenants wait in the queue.
        best = Math.min(best, await connections.probe(server).catch(() => 0));
      }
      if (best > rules.max_latency_ms) {
        return `${server.name} takes ${Math.round(best)} ms to answer after wave ${wave}, more than ${rules.max_latency_ms}`;
      }
    }
    return undefined;
  }

  /** Unless somebody was quicker, e.g. paused it. */
  async #end({ rollout_id: rolloutId }: RolloutRow, state: RolloutState, reason: string): Promise<'again'> {
    const { database, logger } = this.#options;
    await database.asSystem(async (tx) => {
      const mine = await tx.execute(
        `SELECT FROM provisioner.migration_rollouts WHERE rollout_id = $1 AND driver = $2 AND state = 'running' FOR UPDATE`,
        [rolloutId, this.#me],
      );
      if (mine > 0) await move(tx, rolloutId, state, reason);
    });
    logger.info({ rollout_id: rolloutId, state, reason }, 'a rollout stands');
    return 'again';
  }

  /** Takes or renews this process's right to drive it. */
  async #take(rolloutId: string): Promise<RolloutRow | undefined> {
    const { database, leaseMs } = this.#options;
    const [row] = await database.asSystem((tx) =>
      tx.query<RolloutRow>(
        `UPDATE provisioner.migration_rollouts SET driver = $2, driver_until = now() + $3 * interval '1 millisecond'
         WHERE rollout_id = $1 AND (driver IS NULL OR driver = $2 OR driver_until <= now()) RETURNING ${ROLLOUT_COLUMNS}`,
        [rolloutId, this.#me, leaseMs],
      ),
    );
    return row;
  }

  async #leave(rolloutId: string): Promise<void> {
    await this.#options.database.asSystem((tx) =>
      tx.execute(
        `UPDATE provisioner.migration_rollouts SET driver = NULL, driver_until = NULL WHERE rollout_id = $1 AND driver = $2`,
        [rolloutId, this.#me],
      ),
    );
  }

  /** Tenants that were out of reach when their rollout passed: begun as soon as they can be. */
  async #catchUp(): Promise<void> {
    const { database, leaseMs, runs } = this.#options;
    const rollouts = await database.asSystem((tx) =>
      tx.query<RolloutRow>(
        `SELECT ${ROLLOUT_COLUMNS} FROM provisioner.migration_rollouts o
         WHERE direction = 'up' AND state = 'succeeded' AND EXISTS (
           SELECT FROM provisioner.migration_runs WHERE rollout_id = o.rollout_id AND state = 'queued' AND not_before <= now())`,
      ),
    );
    for (const rollout of rollouts) {
      const from = { state: 'queued', wave: null, limit: CAUGHT_UP_AT_ONCE } as const;
      for (const held of await beginRuns(database, rollout, from, leaseMs)) {
        void runs.carryOut(held).then(this.#wake);
      }
    }
  }
}
