import type { TenantStateName } from './tenant-state.ts';

/** Whether a tenant in this state has a database that can be read whole. */
export function canBeArchived(state: TenantStateName): boolean {
  return state === 'ready' || state === 'read_only' || state === 'suspended';
}

/** One backup as retention sees it. */
export interface KeptBackup {
  backupId: string;
  createdAt: Date;
}

/** The scheduled backups beyond the newest `keep`. The newest that was tried and found whole is never among them. */
export function beyondRetention<B extends KeptBackup & { verified: boolean }>(
  backups: readonly B[],
  keep: number,
): B[] {
  const newestFirst = backups.toSorted((a, b) => b.createdAt.getTime() - a.createdAt.getTime());
  const proven = newestFirst.find(({ verified }) => verified);
  return newestFirst.slice(keep).filter((backup) => backup !== proven);
}
