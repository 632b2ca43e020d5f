import { Code } from '@connectrpc/connect';
import { ReconcileService } from '@mad/proto/provisioner';
import { actorOf, bind, callerOf, rpcError, type BoundService } from '@mad/rpc';
import type { ProvisionerContext } from '../context.ts';
import { remedyOf, type Difference } from '../domain/reconcile.ts';
import { look, type Look } from '../reconcile/look.ts';
import { repair } from '../reconcile/repair.ts';

/** Shown in one answer; a fleet that differs in more has one cause, which the first tell. */
const SHOWN = 1_000;
/** A few may be left behind; many are the sign of rows that were restored from an old archive. */
const MAX_DATABASES = 10;

export function reconcileService(context: ProvisionerContext): BoundService {
  return bind(ReconcileService, {
    async inspectFleet() {
      return inspection(await look(context));
    },

    async repairFleet({ maxDatabases }, ctx) {
      const before = await look(context);
      const databases = before.differences.filter(({ kind }) => kind === 'orphan_database').length;
      if (databases > (maxDatabases || MAX_DATABASES)) {
        const message = `max_databases: ${databases} databases are of organizations nobody knows; are these the right rows?`;
        throw rpcError(Code.FailedPrecondition, 'STATE_CONFLICT', message, { databases: String(databases) });
      }
      await repair(context, before.differences, actorOf(callerOf(ctx)));
      const after = await look(context);
      const left = new Set(after.differences.map(idOf));
      const repaired = before.differences.filter((one) => !left.has(idOf(one)));
      return {
        ...inspection(after),
        repaired: repaired.slice(0, SHOWN).map(differenceMessage),
      };
    },
  });
}

const idOf = ({ kind, server, name }: Difference): string => `${kind} ${server} ${name}`;

function inspection({ differences, unreachable, looked }: Look) {
  return {
    differences: differences.slice(0, SHOWN).map(differenceMessage),
    leftOff: Math.max(0, differences.length - SHOWN),
    unreachable,
    databases: looked.databases,
    roles: looked.roles,
    objects: looked.objects,
  };
}

function differenceMessage(one: Difference) {
  const { kind, server, name, orgId = '', schema = '' } = one;
  return { kind, server, name, orgId, schema, ...remedyOf(one) };
}
