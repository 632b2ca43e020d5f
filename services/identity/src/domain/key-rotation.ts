/** What rotation knows of a signing key. */
export interface KeyAge {
  kid: string;
  notBefore: Date;
  retireAt: Date | null;
}

/** What rotation does now. */
export interface RotationPlan {
  /** Make a key that signs from then on. */
  create?: { notBefore: Date };
  /** Keys that stop verifying at `at`. */
  retire: { kid: string; at: Date }[];
  /** Keys that verify nothing any more. */
  remove: string[];
}

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
/** A key signs for this long. */
export const KEY_LIFE_MS = 30 * DAY;
/** A key is published so long before it signs that every verifier has fetched it. */
const LEAD_MS = 15 * MINUTE;
/** A key verifies for so long after it last signed: the life of an access token and as much again for clocks. */
const OVERLAP_MS = 20 * MINUTE;

/** Decides the rotation at `now`. `force` makes a new key though the current one is young (a leak). */
export function planRotation(keys: readonly KeyAge[], now: Date, { force = false } = {}): RotationPlan {
  const remove = keys.filter(({ retireAt }) => retireAt !== null && retireAt <= now).map(({ kid }) => kid);
  const live = keys.filter(({ retireAt }) => retireAt === null);
  if (live.length === 0) return { create: { notBefore: now }, retire: [], remove };
  const newest = Math.max(...live.map(({ notBefore }) => notBefore.getTime()));
  const waiting = newest > now.getTime();
  if (waiting || (!force && now.getTime() - newest < KEY_LIFE_MS)) return { retire: [], remove };
  const notBefore = new Date(now.getTime() + LEAD_MS);
  const at = new Date(notBefore.getTime() + OVERLAP_MS);
  return { create: { notBefore }, retire: live.map(({ kid }) => ({ kid, at })), remove };
}

/** The key that signs at `now`: the newest that has begun. */
export function signingKeyAt<K extends KeyAge>(keys: readonly K[], now: Date): K | undefined {
  return keys
    .filter(({ notBefore, retireAt }) => notBefore <= now && (retireAt === null || retireAt > now))
    .reduce<K | undefined>(
      (best, key) => (best === undefined || key.notBefore > best.notBefore ? key : best),
      undefined,
    );
}
