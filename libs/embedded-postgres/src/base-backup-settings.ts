import type { EnvReader } from '@mad/process';

/** How often a server that keeps its log has its files copied, and how many of these copies are kept. */
export interface BaseBackupPolicy {
  /** 0 makes none by itself. */
  everyHours: number;
  keep: number;
}

/** Reads the policy: daily and two unless said otherwise. */
export function readBaseBackupPolicy(r: EnvReader): BaseBackupPolicy {
  return {
    everyHours: r.integer('MAD_BASE_BACKUP_EVERY_HOURS', { default: 24, min: 0, max: 8760 }),
    keep: r.integer('MAD_BASE_BACKUP_KEEP', { default: 2, min: 1, max: 100 }),
  };
}
