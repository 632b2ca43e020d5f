import { MoveMode, TenantService } from '@mad/proto/provisioner';
import type { OperationKind } from '../../services/provisioner/src/domain/plan.ts';
import { SERVER_NAME } from '../../apps/local/src/environment.ts';
import type { Scenario } from '../scenario.ts';
import { SCHEMA } from '../system.ts';
import { underWriting } from './under-writing.ts';

const moving = (name: string, weight: number, kind: OperationKind, mode: MoveMode): Scenario => ({
  name,
  weight,
  run: (chaos, kills) =>
    underWriting(chaos, kills, ({ orgId }) => ({
      kind,
      async ask() {
        const tenants = (await chaos.system.platform()).client(TenantService);
        const server = (await chaos.system.serverOf(orgId)) === SERVER_NAME ? 'second' : SERVER_NAME;
        return { orgId, call: () => tenants.moveTenant({ orgId, schema: SCHEMA, server, mode, keepHours: 0 }) };
      },
      // It may be given up before it has cut over; then the tenant is where it was, with everything.
      ended: () => Promise.resolve([]),
    })),
});

/** To the other server and back, by archive: nobody writes meanwhile, and the client hears so. */
export const moveOffline = moving('move', 18, 'move', MoveMode.OFFLINE);
/** To the other server and back, by logical replication, under a client that writes. */
export const moveOnline = moving('move-online', 24, 'move_online', MoveMode.ONLINE);
