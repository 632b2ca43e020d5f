/** Where a rollout stands, as the table spells it. */
export type RolloutState = 'running' | 'paused' | 'halted' | 'waiting' | 'succeeded' | 'aborted' | 'rolled_back';

export type RolloutDirection = 'up' | 'down';

/** Where one tenant of a rollout stands. */
export type RunState = 'pending' | 'running' | 'succeeded' | 'failed' | 'queued' | 'rolled_back' | 'skipped';

/** How a rollout goes. */
export interface RolloutRules {
  canaries: number;
  wave_size: number;
  /** Tenants migrated at once. */
  concurrency: number;
  /** More in one wave halt it; among staging and canaries one is enough. */
  max_failures: number;
  /** A larger share of a wave, in percent, halts it too. */
  max_failure_percent: number;
  /** How often a tenant is tried whose tables are held or whose server does not answer. */
  attempts: number;
  /** The slowest answer of a server after a wave, in milliseconds. */
  max_latency_ms: number;
  /** Whether somebody must report the staging tenants well. */
  verification: boolean;
}

export const DEFAULT_RULES: RolloutRules = {
  canaries: 5,
  wave_size: 100,
  concurrency: 4,
  max_failures: 5,
  max_failure_percent: 100,
  attempts: 3,
  max_latency_ms: 1000,
  verification: false,
};

export const STAGING_WAVE = 0;
export const CANARY_WAVE = 1;

/** The wave of a tenant that is the `index`-th (from 0) of those not labelled staging. */
export function waveOf(staging: boolean, index: number, { canaries, wave_size: size }: RolloutRules): number {
  if (staging) return STAGING_WAVE;
  return index < canaries ? CANARY_WAVE : CANARY_WAVE + 1 + Math.floor((index - canaries) / size);
}

/** Why a wave's failures halt the rollout; undefined when they do not. */
export function failuresHalt(
  wave: number,
  { failed, total }: { failed: number; total: number },
  rules: RolloutRules,
): string | undefined {
  if (failed === 0) return undefined;
  const few = `${failed} of ${total} failed`;
  if (wave === STAGING_WAVE) return `${few} among the tenants labelled staging`;
  if (wave === CANARY_WAVE) return `${few} among the canaries`;
  if (failed > rules.max_failures) return `${few} in wave ${wave}, more than ${rules.max_failures}`;
  if ((failed * 100) / total > rules.max_failure_percent) {
    return `${few} in wave ${wave}, more than ${rules.max_failure_percent} %`;
  }
  return undefined;
}

/**
 * Why tenants that nobody reached halt the rollout; undefined when they do not. A few are migrated when they come back; where nobody
 * was reached the fault is not theirs, and going on would be going on blindly.
 */
export function absenceHalts(
  wave: number,
  { succeeded, queued }: { succeeded: number; queued: number },
  rules: RolloutRules,
): string | undefined {
  if (queued === 0 || succeeded > 0) return undefined;
  if (wave > CANARY_WAVE && queued <= rules.max_failures) return undefined;
  return `none of ${queued} in wave ${wave} could be reached`;
}

/** How long a tenant waits for its next try, in milliseconds. */
export function pauseBefore(attempts: number): number {
  return Math.min(60_000, 1_000 * 2 ** Math.max(0, attempts - 1));
}
