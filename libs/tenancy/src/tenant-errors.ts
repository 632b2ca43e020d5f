import { Code, type ConnectError } from '@connectrpc/connect';
import { SECOND_MS } from '@mad/process';
import { TenantState, type Route } from '@mad/proto/provisioner';
import { rpcError } from '@mad/rpc';
import type { Failure } from './failure.ts';

const RETRY_UNAVAILABLE_MS = SECOND_MS;
const RETRY_BUDGET_MS = 500;
const RETRY_CREATING_MS = SECOND_MS;

/** What a caller wants of a tenant. */
export type Intent = 'read' | 'transact';

/** Why a tenant in this state refuses the intent; undefined when it does not. */
export function refusalOf(route: Pick<Route, 'orgId' | 'schema' | 'state'>, intent: Intent): ConnectError | undefined {
  const about = { org_id: route.orgId, schema: route.schema, state: TenantState[route.state] };
  switch (route.state) {
    case TenantState.READY:
      return undefined;
    case TenantState.READ_ONLY:
      if (intent === 'read') return undefined;
      return rpcError(Code.FailedPrecondition, 'TENANT_SUSPENDED', 'the organization is read-only', about);
    case TenantState.SUSPENDED:
      return rpcError(Code.FailedPrecondition, 'TENANT_SUSPENDED', 'the organization is suspended', about);
    case TenantState.FAILED:
      return rpcError(
        Code.FailedPrecondition,
        'PROVISIONING_FAILED',
        "making the organization's database failed",
        about,
      );
    case TenantState.MOVING:
      return intent === 'read' ? undefined : unavailable(about);
    case TenantState.RESTORING:
      return unavailable(about);
    case TenantState.REQUESTED:
    case TenantState.CREATING:
      return rpcError(
        Code.FailedPrecondition,
        'TENANT_NOT_PROVISIONED',
        "the organization's database is being made",
        about,
        {
          retryAfterMs: RETRY_CREATING_MS,
        },
      );
    default:
      return rpcError(Code.FailedPrecondition, 'TENANT_NOT_PROVISIONED', 'the organization has no database', about);
  }
}

/** The tenant's database is of a version older than this code works with. */
export function outdated(about: Record<string, string>, version: string): ConnectError {
  const message = `the organization's database is at ${version}, older than what this release works with: an operator migrates it`;
  return rpcError(Code.FailedPrecondition, 'SCHEMA_OUTDATED', message, { ...about, schema_version: version });
}

/** The tenant's database, or the way to it, does not answer. */
export function unavailable(
  about: Record<string, string>,
  cause?: unknown,
  retryAfterMs: number = RETRY_UNAVAILABLE_MS,
): ConnectError {
  return rpcError(Code.Unavailable, 'DATABASE_UNAVAILABLE', "the organization's database does not answer", about, {
    retryAfterMs,
    cause,
  });
}

/** No connection came free in time. */
export function exhausted(about: Record<string, string>, cause: unknown): ConnectError {
  return rpcError(
    Code.ResourceExhausted,
    'CONNECTION_BUDGET_EXHAUSTED',
    'too many requests for the connections there are',
    about,
    { retryAfterMs: RETRY_BUDGET_MS, cause },
  );
}

/** More calls of the organization at once than one may have: its own doing, and nobody else waits for it. */
export function crowded(about: Record<string, string>, maxInFlight: number): ConnectError {
  return rpcError(
    Code.ResourceExhausted,
    'CONNECTION_BUDGET_EXHAUSTED',
    `the organization has ${maxInFlight} requests in flight already`,
    { ...about, max_in_flight: String(maxInFlight) },
    { retryAfterMs: RETRY_BUDGET_MS },
  );
}

/** What the caller is told of a failure on the way to the database. */
export function failed(failure: Failure, about: Record<string, string>, cause: unknown): ConnectError {
  const told = { ...about, failure: failure.kind };
  return failure.code === Code.ResourceExhausted ? exhausted(told, cause) : unavailable(told, cause);
}

/** The route changed while the work was going on: nothing was written; the same request may be sent again. */
export function moved(about: Record<string, string>, cause?: unknown): ConnectError {
  return rpcError(Code.Aborted, 'TENANT_MOVED', "the organization's database moved meanwhile", about, {
    retryAfterMs: 0,
    cause,
  });
}
