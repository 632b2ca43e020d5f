import { uuidv7 } from '@mad/process';
import { TenantService } from '@mad/proto/provisioner';
import type { Scenario } from '../scenario.ts';
import { SCHEMA } from '../system.ts';
import { underWriting } from './under-writing.ts';

/** The tenant's login is replaced while a client works under it. */
export const rotate: Scenario = {
  name: 'rotate',
  weight: 9,
  run: (chaos, kills) =>
    underWriting(chaos, kills, ({ orgId }) => ({
      kind: 'rotate',
      async ask() {
        const tenants = (await chaos.system.platform()).client(TenantService);
        const request = { orgId, schema: SCHEMA, requestId: uuidv7() };
        return { orgId, call: () => tenants.rotateTenantCredentials(request) };
      },
      // It may be given up, since the login in use is touched by no step: the client tells whether that holds.
      ended: () => Promise.resolve([]),
    })),
};
