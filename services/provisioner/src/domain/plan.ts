import { databaseName, loginName } from './names.ts';

/** Something that is undertaken with a tenant. */
export type OperationKind = 'provision' | 'suspend' | 'resume' | 'migrate';

export type StepName =
  | 'create_login_roles'
  | 'create_database'
  | 'grant_connect'
  | 'verify'
  | 'close_connections'
  | 'open_connections'
  | 'migrate';

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

/**
 * What each operation does, in order. Every step may be repeated: a process that dies in the middle of one is replaced
 * by another that begins it anew. Which server and which passwords was settled when the tenant was asked for.
 */
export const PLANS: Readonly<Record<OperationKind, readonly StepName[]>> = {
  provision: ['create_login_roles', 'create_database', 'grant_connect', 'verify'],
  suspend: ['close_connections'],
  resume: ['open_connections'],
  migrate: ['migrate'],
};

export function firstStep(kind: OperationKind): StepName {
  return PLANS[kind][0]!;
}

/** The step after this one, or undefined when the operation is done with it. */
export function stepAfter(kind: OperationKind, step: StepName): StepName | undefined {
  const plan = PLANS[kind];
  const index = plan.indexOf(step);
  if (index < 0) throw new RangeError(`${step} is no step of ${kind}`);
  return plan[index + 1];
}

/** What a step makes on the server, by name: recorded for cleaning up before the step begins. */
export function objectsOf(step: StepName | undefined, { orgId, schema }: TenantKey): ExternalObject[] {
  switch (step) {
    case 'create_login_roles':
      return (['a', 'b'] as const).map((slot) => ({ kind: 'role', name: loginName(schema, orgId, slot) }));
    case 'create_database':
      return [{ kind: 'database', name: databaseName(schema, orgId) }];
    default:
      return [];
  }
}

/** What decides whether the leavings of an operation may be removed. */
export interface Leavings {
  operation: 'running' | 'succeeded' | 'failed';
  /** Whether the tenant still belongs to that operation, and not to a later one. */
  current: boolean;
  /** Whether some run holds the tenant's lease. */
  leased: boolean;
  endedMsAgo: number;
}

/**
 * Leavings are removed when their operation has failed and nobody came to go on with it for a while, when it succeeded
 * without them, or when a later operation took its place; and never under the hands of a run that holds the tenant.
 */
export function mayCleanUp({ operation, current, leased, endedMsAgo }: Leavings, graceMs: number): boolean {
  if (leased) return false;
  if (operation === 'failed') return endedMsAgo >= graceMs;
  return operation === 'succeeded' || !current;
}
