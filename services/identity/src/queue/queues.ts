import { MINUTE_MS, SECOND_MS } from '@mad/process';

/** Makes an organization's databases. */
export const ENSURE_TENANT = 'ensure-tenant';
/** Tells the provisioner that an organization was suspended or resumed. */
export const SET_TENANT_STATE = 'set-tenant-state';
/** Has an organization's databases, objects and rows erased. */
export const ERASE_ORGANIZATION = 'erase-organization';
/** Rotates signing keys, deletes what has expired, repeats what was given up. */
export const HOUSEKEEPING = 'housekeeping';

/** What the first two say: the organization. What to do is read from its row, so that a late message does no harm. */
export interface OrganizationMessage {
  org_id: string;
}

/** What the third says. */
export interface ErasureMessage extends OrganizationMessage {
  erasure_id: string;
  slug: string;
  requested_by: string;
}

/** A database server may be down for days: an organization then waits, and is served within a minute of its return. */
const PATIENT = { retryLimit: 100_000, retryDelayMs: SECOND_MS, retryDelayMaxMs: MINUTE_MS };

/** The queues of identity. */
export const identityQueues = {
  [ENSURE_TENANT]: PATIENT,
  [SET_TENANT_STATE]: PATIENT,
  [ERASE_ORGANIZATION]: PATIENT,
  [HOUSEKEEPING]: {},
};
