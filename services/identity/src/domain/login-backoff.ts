/** What is remembered of an account's refused sign-ins. */
export interface LoginAttempts {
  failedLogins: number;
  lockedUntil: Date | null;
}

const SECOND = 1000;
/** Mistakes a person makes before waiting begins. */
const FREE_ATTEMPTS = 5;
/** Nobody can lock another person out for longer than this at a time. */
const MAX_LOCK_MS = 300 * SECOND;
/** After so much quiet past the last lock, counting starts anew. */
const FORGET_MS = 900 * SECOND;

/**
 * Charges one sign-in attempt before its password is looked at, so that guesses made at the same time count too.
 * Returns undefined while the account is locked: the attempt is refused without looking. A good sign-in resets both.
 */
export function chargeAttempt(attempts: LoginAttempts, now: Date): LoginAttempts | undefined {
  const { lockedUntil } = attempts;
  if (lockedUntil !== null && now < lockedUntil) return undefined;
  const forgotten = lockedUntil !== null && now.getTime() - lockedUntil.getTime() > FORGET_MS;
  const failedLogins = (forgotten ? 0 : attempts.failedLogins) + 1;
  if (failedLogins <= FREE_ATTEMPTS) return { failedLogins, lockedUntil: null };
  // The exponent is bounded as well: 2 ** 1024 is Infinity.
  const lockMs = Math.min(MAX_LOCK_MS, SECOND * 2 ** Math.min(failedLogins - FREE_ATTEMPTS, 20));
  return { failedLogins: Math.min(failedLogins, 1_000), lockedUntil: new Date(now.getTime() + lockMs) };
}
