/**
 * Why a call failed, where a caller must branch on it: the `reason` of google.rpc.ErrorInfo, domain `mad`. One vocabulary
 * for all services; a reason is added here when the first caller needs it.
 */
export type Reason =
  // access
  | 'CALLER_NOT_ALLOWED'
  | 'KEYS_UNAVAILABLE'
  | 'ORGANIZATION_NOT_FOUND'
  | 'PERMISSION_MISSING'
  | 'TOKEN_EXPIRED'
  | 'TOKEN_INVALID'
  | 'TOKEN_MISSING'
  | 'TOKEN_REVOKED'
  | 'WRONG_AUDIENCE'
  // accounts
  | 'ACCOUNT_DISABLED'
  | 'ACCOUNT_LOCKED'
  | 'CREDENTIALS_WRONG'
  | 'REFRESH_TOKEN_REUSED'
  // any resource
  | 'ALREADY_EXISTS'
  | 'ETAG_MISMATCH'
  | 'IMMUTABLE'
  | 'IN_USE'
  | 'RATE_LIMITED'
  | 'REQUEST_ID_REUSED'
  | 'RESOURCE_NOT_FOUND'
  | 'SERVICE_UNAVAILABLE'
  | 'SHUTTING_DOWN'
  | 'STATE_CONFLICT'
  // tenants and their databases
  | 'CONNECTION_BUDGET_EXHAUSTED'
  | 'DATABASE_UNAVAILABLE'
  | 'KEY_SERVICE_UNAVAILABLE'
  | 'MIGRATION_FAILED'
  | 'NO_SERVER_AVAILABLE'
  | 'ORGANIZATION_ERASED'
  | 'PROVISIONING_FAILED'
  | 'SCHEMA_OUTDATED'
  | 'REPLICATION_UNAVAILABLE'
  | 'TENANT_MOVED'
  | 'TENANT_NOT_PROVISIONED'
  | 'TENANT_PROVISIONING'
  | 'TENANT_SUSPENDED'
  // jobs
  | 'ALREADY_FINISHED'
  | 'BATCH_GAP'
  | 'JOB_CANCELLED'
  | 'JOB_ENDED'
  | 'LEASE_LOST'
  | 'QUOTA_EXCEEDED'
  | 'RESULTS_DROPPED'
  | 'WORKER_LOST'
  // molecules and pipelines
  | 'ALREADY_PUBLISHED'
  | 'MOLECULE_INVALID'
  | 'PARAMETER_INVALID'
  | 'PIPELINE_INVALID';
