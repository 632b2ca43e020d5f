import { copyName, databaseName, loginName } from './names.ts';
import type { TenantStateName } from './tenant-state.ts';

/** Something that is undertaken with a tenant. */
export type OperationKind =
  | 'provision'
  | 'suspend'
  | 'freeze'
  | 'resume'
  | 'migrate'
  | 'rotate'
  | 'backup'
  | 'verify_backup'
  | 'restore'
  | 'restore_table'
  | 'repair'
  | 'build_index'
  | 'drop_index'
  | 'move'
  | 'move_online'
  | 'erase';

export type StepName =
  | 'create_database'
  | 'admit_logins'
  | 'verify'
  | 'close_connections'
  | 'open_connections'
  | 'close_writes'
  | 'open_writes'
  | 'migrate'
  | 'renew_login'
  | 'verify_login'
  | 'switch_login'
  | 'write_archive'
  | 'build_copy'
  | 'load_copy'
  | 'drop_copy'
  | 'migrate_copy'
  | 'lay_beside'
  | 'swap_in'
  | 'repair'
  | 'build_index'
  | 'drop_index'
  | 'drop_unfinished'
  | 'stop_writes'
  | 'build_target'
  | 'copy_rows'
  | 'finish_target'
  | 'cut_over'
  | 'retire_source'
  | 'start_replication'
  | 'catch_up'
  | 'fence_source'
  | 'drain'
  | 'take_back'
  | 'shut_out'
  | 'drop_databases'
  | 'drop_roles'
  | 'delete_objects'
  | 'destroy_keys'
  | 'erase_rows'
  | 'sign_record';

export type ObjectKind = 'database' | 'role' | 'template';

/** An object on a server that would outlive its purpose if nobody remembered it. */
export interface ExternalObject {
  kind: ObjectKind;
  name: string;
}

/** Whose tenant. */
export interface TenantKey {
  orgId: string;
  schema: string;
}

/** The organization of what is undertaken for none. */
export const NOBODY = '00000000-0000-0000-0000-000000000000';

/** What a tenant that is restored was, and is again afterwards. */
export type RestoredState = Extract<TenantStateName, 'ready' | 'suspended' | 'read_only'>;

/** How an operation goes, and what its end means for the tenant. */
export interface Plan {
  /**
   * In order. Every step may be repeated: a process that dies in the middle of one is replaced by another that begins it
   * anew.
   */
  steps: readonly StepName[];
  /**
   * The state the tenant is in afterwards, under a new generation where it was not before; where not, it stays. `as_before`:
   * the one that was noted when the operation began.
   */
  opens?: 'ready' | 'read_only' | 'erased' | 'as_before';
  /** What it made on the server is the tenant's from then on, so that its cleanup records go. */
  keepsObjects?: true;
  /** Routers are told of the end; where not, they were told at the beginning. */
  announces: boolean;
  /**
   * What a failing step does: `fail_tenant` leaves a FAILED tenant that goes on at this step when it is asked for again,
   * `stop` ends the operation and leaves the tenant as it was, `retry` tries again and again, unless what it works on is gone.
   */
  onFailure: 'fail_tenant' | 'stop' | 'retry';
  /** Whether it may be given up before any of its steps begins; one that has begun is carried through. */
  cancellable?: true;
  /** From this step on it must be carried through: not given up, and tried again and again. */
  carriedThroughFrom?: StepName;
  /**
   * What gives the tenant back as it was, when the operation failed or was given up while it was under way. It is no step
   * of its own; until it has gone through, the operation has not ended.
   */
  undo?: StepName;
  /**
   * It may take hours: such ones leave room for others, may be given up in the middle of a step, and are when the tenant
   * is to be suspended.
   */
  long?: true;
  /** The same for one of which a whole fleet is done at once: it need not leave as much room. */
  givesWay?: true;
  /** Somebody waits for it who must not: it needs no turn among the others. */
  urgent?: true;
}

export const PLANS: Readonly<Record<OperationKind, Plan>> = {
  // Which server and which passwords was settled when the tenant was asked for.
  provision: {
    steps: ['create_database', 'admit_logins', 'verify'],
    opens: 'ready',
    keepsObjects: true,
    announces: true,
    onFailure: 'fail_tenant',
  },
  // A suspension must be carried through.
  suspend: { steps: ['close_connections'], announces: false, onFailure: 'retry', urgent: true },
  // Routers are told first, unless it was suspended: then they may come only when nothing can be written any more.
  freeze: {
    steps: ['close_writes', 'open_connections'],
    opens: 'read_only',
    announces: true,
    onFailure: 'retry',
    urgent: true,
  },
  resume: {
    steps: ['open_writes', 'open_connections'],
    opens: 'ready',
    announces: true,
    onFailure: 'retry',
    urgent: true,
  },
  migrate: { steps: ['migrate'], announces: true, onFailure: 'stop', cancellable: true, givesWay: true },
  // The login in use is touched by no step: whatever fails, the tenant has one that works.
  rotate: {
    steps: ['renew_login', 'verify_login', 'switch_login'],
    announces: true,
    onFailure: 'stop',
    cancellable: true,
  },
  backup: { steps: ['write_archive'], announces: false, onFailure: 'stop', cancellable: true, long: true },
  verify_backup: {
    steps: ['build_copy', 'load_copy', 'drop_copy'],
    announces: false,
    onFailure: 'stop',
    cancellable: true,
    long: true,
  },
  restore: {
    steps: ['build_copy', 'load_copy', 'migrate_copy', 'swap_in'],
    opens: 'as_before',
    announces: true,
    onFailure: 'stop',
    cancellable: true,
    carriedThroughFrom: 'swap_in',
    long: true,
  },
  // The copy stays empty: it tells which types the archived columns are of.
  restore_table: {
    steps: ['build_copy', 'lay_beside', 'drop_copy'],
    announces: false,
    onFailure: 'stop',
    cancellable: true,
    long: true,
  },
  // An index takes as long as its table is large.
  build_index: {
    steps: ['build_index'],
    announces: false,
    onFailure: 'stop',
    cancellable: true,
    undo: 'drop_unfinished',
    long: true,
  },
  // It is no part of what the database should be any more: where it gives way, it is begun anew.
  drop_index: { steps: ['drop_index'], announces: false, onFailure: 'retry', long: true },
  repair: { steps: ['repair'], announces: false, onFailure: 'stop', cancellable: true, long: true },
  // Read, but not written, until the new server has every row.
  move: {
    steps: ['stop_writes', 'build_target', 'copy_rows', 'finish_target', 'cut_over', 'retire_source'],
    opens: 'ready',
    announces: true,
    onFailure: 'stop',
    cancellable: true,
    carriedThroughFrom: 'cut_over',
    undo: 'take_back',
    long: true,
  },
  // Read and written, but for the moment between fence and cut-over.
  move_online: {
    steps: [
      'build_target',
      'start_replication',
      'catch_up',
      'finish_target',
      'fence_source',
      'drain',
      'cut_over',
      'retire_source',
    ],
    opens: 'ready',
    announces: true,
    onFailure: 'stop',
    cancellable: true,
    carriedThroughFrom: 'cut_over',
    undo: 'take_back',
    long: true,
  },
  // Of a whole organization, under the lease of the first of its tenants; the others rest meanwhile. What could be read
  // goes first and the keys before the rows, so that an erasure that must wait for somebody has nothing left to leak.
  erase: {
    steps: ['shut_out', 'drop_databases', 'drop_roles', 'delete_objects', 'destroy_keys', 'erase_rows', 'sign_record'],
    opens: 'erased',
    announces: true,
    onFailure: 'retry',
    cancellable: true,
    carriedThroughFrom: 'drop_databases',
    long: true,
  },
};

/** The state a tenant is in when its operation is done; undefined where it stays in the one it has. */
export function stateAfter(kind: OperationKind, params: { state?: unknown }): TenantStateName | undefined {
  const { opens } = PLANS[kind];
  // A release before this one restored only what was ready, and noted nothing.
  return opens === 'as_before' ? ((params.state as RestoredState | undefined) ?? 'ready') : opens;
}

/** Whether an operation that is at this step can no longer be given up. */
export function mustBeCarriedThrough(kind: OperationKind, step: StepName): boolean {
  const { cancellable, carriedThroughFrom } = PLANS[kind];
  if (cancellable !== true) return true;
  return carriedThroughFrom !== undefined && stepIndex(kind, step) >= stepIndex(kind, carriedThroughFrom);
}

/** Whether somebody may have to wait long for it, and it is given up when it is in the way of a suspension. */
export function mayTakeLong(kind: OperationKind): boolean {
  const { long, givesWay } = PLANS[kind];
  return long === true || givesWay === true;
}

export function firstStep(kind: OperationKind): StepName {
  return PLANS[kind].steps[0]!;
}

/** How many steps come before this one. Throws RangeError for a step of another kind. */
export function stepIndex(kind: OperationKind, step: StepName): number {
  const index = PLANS[kind].steps.indexOf(step);
  if (index < 0) throw new RangeError(`${step} is no step of ${kind}`);
  return index;
}

/** The step after this one, or undefined when the operation is done with it. */
export function stepAfter(kind: OperationKind, step: StepName): StepName | undefined {
  return PLANS[kind].steps[stepIndex(kind, step) + 1];
}

/** What an operation makes on the server, by name: recorded for cleaning up before it begins. */
export function objectsOf(kind: OperationKind, { orgId, schema }: TenantKey, operationId: string): ExternalObject[] {
  if (kind === 'verify_backup' || kind === 'restore' || kind === 'restore_table')
    return [{ kind: 'database', name: copyName(schema, operationId) }];
  if (kind !== 'provision') return [];
  return [
    { kind: 'database', name: databaseName(schema, orgId) },
    { kind: 'role', name: loginName(schema, orgId, 'a') },
    { kind: 'role', name: loginName(schema, orgId, 'b') },
  ];
}

/** What decides whether the leavings of an operation may be removed. */
export interface Leavings {
  operation: 'running' | 'succeeded' | 'failed' | 'cancelled';
  /** Whether the tenant still belongs to that operation, and not to a later one. */
  current: boolean;
  /** Whether some run holds the tenant's lease. */
  leased: boolean;
  endedMsAgo: number;
}

/**
 * Leavings are removed when their operation has failed and nobody came to go on with it for a while, when it succeeded
 * without them or was given up, or when a later operation took its place; and never under the hands of a run that holds the tenant.
 */
export function mayCleanUp({ operation, current, leased, endedMsAgo }: Leavings, graceMs: number): boolean {
  if (leased) return false;
  if (operation === 'failed') return endedMsAgo >= graceMs;
  return operation === 'succeeded' || operation === 'cancelled' || !current;
}
