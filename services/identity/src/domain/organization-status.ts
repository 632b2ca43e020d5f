/** Where an organization stands in its life, as the table spells it. */
export type OrganizationStatusName = 'provisioning' | 'active' | 'suspended' | 'read_only' | 'erasing' | 'erased';

/** What an organization's members may do in a status. */
export function allowedUse(status: OrganizationStatusName): 'everything' | 'reading' | 'nothing' {
  if (status === 'provisioning' || status === 'active') return 'everything';
  return status === 'read_only' ? 'reading' : 'nothing';
}

/** The status after suspending, or undefined when an organization in this status cannot be suspended. */
export function suspended(status: OrganizationStatusName): OrganizationStatusName | undefined {
  return status === 'active' || status === 'read_only' || status === 'suspended' ? 'suspended' : undefined;
}

/** The status after resuming, or undefined when an organization in this status cannot be resumed. */
export function resumed(status: OrganizationStatusName): OrganizationStatusName | undefined {
  return status === 'suspended' || status === 'read_only' || status === 'active' ? 'active' : undefined;
}

/** The status after making read-only, or undefined when that cannot be done to an organization in this status. */
export function frozen(status: OrganizationStatusName): OrganizationStatusName | undefined {
  return status === 'active' || status === 'suspended' || status === 'read_only' ? 'read_only' : undefined;
}

/** Whether its erasure may be asked for. */
export function mayBeErased(status: OrganizationStatusName): boolean {
  return status !== 'erasing' && status !== 'erased';
}
