import { Code, ConnectError } from '@connectrpc/connect';
import { SECOND_MS } from '@mad/process';
import { TenantState, type Route } from '@mad/proto/provisioner';
import { rpcError } from '@mad/rpc';

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

/** The tenant's database, or the way to it, does not answer. */
export function unavailable(about: Record<string, string>, cause?: unknown): ConnectError {
  return rpcError(Code.Unavailable, 'DATABASE_UNAVAILABLE', "the organization's database does not answer", about, {
    retryAfterMs: RETRY_UNAVAILABLE_MS,
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

/** The route changed while the work was going on: nothing was written; the same request may be sent again. */
export function moved(about: Record<string, string>, cause?: unknown): ConnectError {
  return rpcError(Code.Aborted, 'TENANT_MOVED', "the organization's database moved meanwhile", about, {
    retryAfterMs: 0,
    cause,
  });
}

/** Postgres's class 08, its shutdowns, and what Node says of a socket. */
const CONNECTION_CODES = new Set([
  '57P01',
  '57P02',
  '57P03',
  '53300',
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
]);
/** Wrong password or login, or no such database: the route is old, or the fence is up. */
const ROUTE_CODES = new Set(['28P01', '28000', '3D000']);

/** The code and text of an error of Postgres or of Node's sockets; what else is thrown has neither. */
function systemError(error: unknown): { code: string; message: string } {
  const { code, message } = error instanceof Error ? (error as Error & { code?: unknown }) : {};
  return { code: typeof code === 'string' ? code : '', message: message ?? '' };
}

/** Whether the connection itself failed, rather than a statement on it. */
export function isConnectionLoss(error: unknown): boolean {
  if (error instanceof ConnectError) return false;
  const { code, message } = systemError(error);
  if (CONNECTION_CODES.has(code) || code.startsWith('08')) return true;
  return /^(Connection terminated|timeout expired|Client has encountered a connection error|Client was closed)/.test(
    message,
  );
}

/** Whether Postgres refused the login itself. */
export function isRouteRefused(error: unknown): boolean {
  const { code, message } = systemError(error);
  return ROUTE_CODES.has(code) || (code === '42501' && message.includes('for database'));
}
