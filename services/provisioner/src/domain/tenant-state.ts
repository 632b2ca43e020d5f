/** Where a tenant stands in its life, as the table spells it. */
export type TenantStateName =
  | 'requested'
  | 'creating'
  | 'ready'
  | 'suspended'
  | 'read_only'
  | 'moving'
  | 'restoring'
  | 'erasing'
  | 'erased'
  | 'failed';

export const TENANT_STATES: readonly TenantStateName[] = [
  'requested',
  'creating',
  'ready',
  'suspended',
  'read_only',
  'moving',
  'restoring',
  'erasing',
  'erased',
  'failed',
];

/** What a request to make a tenant finds to do. */
export type EnsureAnswer = 'exists' | 'make' | 'gone';

/** An erased tenant is a tombstone: nothing makes it again. */
export function ensureAnswer(state: TenantStateName): EnsureAnswer {
  switch (state) {
    case 'requested':
    case 'creating':
    case 'failed':
      return 'make';
    case 'erasing':
    case 'erased':
      return 'gone';
    default:
      return 'exists';
  }
}

/** Whether a route to the tenant may carry credentials. */
export function isUsable(state: TenantStateName): boolean {
  return state === 'ready' || state === 'read_only';
}

/** What suspending or resuming finds to do with a tenant. */
export type SwitchAnswer = 'switch' | 'finish' | 'nothing' | 'wait';

/**
 * For suspending: a tenant that is being made is waited for, because what is half made cannot be shut. `step` is what
 * is still to do from an earlier request.
 */
export function suspendAnswer(state: TenantStateName, step: string | null): SwitchAnswer {
  if (state === 'suspended') return step === 'close_connections' ? 'finish' : step === null ? 'nothing' : 'wait';
  if (state === 'failed' || state === 'erased' || state === 'erasing') return 'nothing';
  return isUsable(state) && step === null ? 'switch' : 'wait';
}

/** For resuming: only a suspended tenant has anything to resume. */
export function resumeAnswer(state: TenantStateName, step: string | null): SwitchAnswer {
  if (state !== 'suspended') return 'nothing';
  if (step === null) return 'switch';
  return step === 'open_connections' ? 'finish' : 'wait';
}
