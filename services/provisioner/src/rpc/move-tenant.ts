import type { HandlerContext } from '@connectrpc/connect';
import { HOUR_MS } from '@mad/process';
import { MoveMode, type MoveTenantRequest, type Operation } from '@mad/proto/provisioner';
import { actorOf, callerOf } from '@mad/rpc';
import type { ProvisionerContext } from '../context.ts';
import { beginMove, conflict, endsOf, noReplication, refusal } from '../move/begin.ts';
import { systemOf } from '../move/places.ts';
import { whyNoSource, whyNoTarget } from '../move/replication.ts';
import { startOperation } from './operation.ts';

/** Begins a move after a look at both servers. Throws as `beginMove` does. */
export async function moveTenant(
  context: ProvisionerContext,
  { orgId, schema, server, mode, keepHours }: MoveTenantRequest,
  ctx: HandlerContext,
): Promise<{ operation: Operation }> {
  const { connections, database, leaseMs, replacedKeepMs } = context;
  const key = { orgId: orgId.toLowerCase(), schema };
  const ends = await database.asSystem((tx) => endsOf(tx, key, server));
  const [from, to] = await Promise.all(
    [ends.source, ends.target].map((end) =>
      connections.asAdmin(end, systemOf).catch((error: unknown) => {
        throw refusal(end.name, 'unreachable', error);
      }),
    ),
  );
  if (from === to) throw conflict(key, `server: ${ends.source.name} and ${server} are one server under two names`);
  const kind = mode === MoveMode.ONLINE ? 'move_online' : 'move';
  if (kind === 'move_online') {
    const [noSource, noTarget] = await Promise.all([
      connections.asAdmin(ends.source, (client) => whyNoSource(client, ends.source.name)),
      connections.asAdmin(ends.target, (client) => whyNoTarget(client, server)),
    ]);
    const why = noSource ?? noTarget;
    if (why !== undefined) throw noReplication(key, why);
  }
  const keepMs = keepHours === undefined ? replacedKeepMs : keepHours * HOUR_MS;
  const request = { actor: actorOf(callerOf(ctx)), leaseMs, keepMs, kind } as const;
  const held = await database.asSystem((tx) => beginMove(tx, key, ends, request));
  return { operation: await startOperation(context, held) };
}
