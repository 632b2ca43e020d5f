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

/** Whether the tenant is open for work, if only for reading. */
export function isUsable(state: TenantStateName): boolean {
  return state === 'ready' || state === 'read_only';
}

/** Whether a route to the tenant may carry credentials: one that is being moved is read meanwhile. */
export function isReadable(state: TenantStateName): boolean {
  return isUsable(state) || state === 'moving';
}

/** What suspending, making read-only or resuming finds to do with a tenant. */
export type SwitchAnswer = 'switch' | 'finish' | 'nothing' | 'wait';

/** The steps that shut and open a tenant. What else is done with one that is shut leaves it shut. */
const SWITCHING: readonly (string | null)[] = ['close_connections', 'open_connections', 'close_writes', 'open_writes'];

/**
 * For suspending: a tenant that is being made is waited for, because what is half made cannot be shut. `step` is what
 * is still to do from an earlier request.
 */
export function suspendAnswer(state: TenantStateName, step: string | null): SwitchAnswer {
  if (state === 'suspended') {
    if (step === 'close_connections') return 'finish';
    return SWITCHING.includes(step) ? 'wait' : 'nothing';
  }
  if (state === 'failed' || state === 'erased' || state === 'erasing') return 'nothing';
  return isUsable(state) && step === null ? 'switch' : 'wait';
}

/** For making read-only: a suspended tenant may be read again afterwards. */
export function freezeAnswer(state: TenantStateName, step: string | null): SwitchAnswer {
  if (state === 'failed' || state === 'erased' || state === 'erasing') return 'nothing';
  if (step === 'close_writes') return 'finish';
  if (state === 'read_only' && !SWITCHING.includes(step)) return 'nothing';
  if (step !== null) return 'wait';
  return state === 'ready' || state === 'suspended' ? 'switch' : 'wait';
}

/** For resuming: only a tenant that is suspended or read-only has anything to resume, or will be when it is restored. */
export function resumeAnswer(state: TenantStateName, step: string | null): SwitchAnswer {
  if (state === 'restoring') return 'wait';
  if (state !== 'suspended' && state !== 'read_only') return 'nothing';
  if (step === null) return 'switch';
  return step === 'open_writes' || step === 'open_connections' ? 'finish' : 'wait';
}
