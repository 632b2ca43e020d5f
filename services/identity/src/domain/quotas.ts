/** What an organization may use, in the spelling of the column `quotas`. */
export interface QuotaLimits {
  max_concurrent_jobs: number;
  max_queued_tasks: number;
  max_molecules: number;
  max_storage_bytes: number;
  max_members: number;
  max_tokens: number;
  max_running_tasks: number;
}

const GIB = 2 ** 30;

/** What an organization may use when nobody said otherwise. */
export const DEFAULT_QUOTAS: Readonly<QuotaLimits> = {
  max_concurrent_jobs: 10,
  max_queued_tasks: 10_000,
  max_molecules: 1_000_000,
  max_storage_bytes: 100 * GIB,
  max_members: 1_000,
  max_tokens: 1_000,
  max_running_tasks: 64,
};

/** The quotas asked for, the default wherever none is (zero or absent). */
export function withDefaults(asked: Partial<QuotaLimits>): QuotaLimits {
  const quotas = { ...DEFAULT_QUOTAS };
  for (const name of Object.keys(quotas) as (keyof QuotaLimits)[]) {
    const value = asked[name];
    if (value !== undefined && value !== 0) quotas[name] = value;
  }
  return quotas;
}

/** The first quota that is no whole number from 1 to 2⁵³−1, if one is not. */
export function badQuota(quotas: QuotaLimits): keyof QuotaLimits | undefined {
  return (Object.keys(quotas) as (keyof QuotaLimits)[]).find(
    (name) => !Number.isSafeInteger(quotas[name]) || quotas[name] < 1,
  );
}
