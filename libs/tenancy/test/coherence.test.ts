import { setTimeout as delay } from 'node:timers/promises';
import { grpcTransport, type GrpcTransport } from '@mad/rpc';
import { TenantState } from '@mad/proto/provisioner';
import { openProxy, type Fault, type Proxy } from '@mad/testing';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { openFleet, until, type Fleet } from './fleet.ts';
import type { Tenants } from '../src/index.ts';

/** A change on the stream is some 60 bytes: the faults are before, in and behind it, and in its HTTP/2 frames' headers. */
const CUTS = Array.from({ length: 16 }, (_, n) => 1 + 7 * n);
const STALLS = [1, 9, 14, 40, 75];
/** For a reader that is polled on a busy machine. */
const SLACK_MS = 1_500;
/** What the stream's silence may last, and how soon a dead connection is noticed by its pings. */
const SILENCE_MS = 400;
const PING = { everyMs: 200, timeoutMs: 300 };

let fleet: Fleet;
const proxies: Proxy[] = [];
const transports: GrpcTransport[] = [];
let next = 0;

beforeAll(async () => {
  fleet = await openFleet(CUTS.length + STALLS.length + 3);
}, 60_000);

afterAll(async () => {
  for (const transport of transports) transport.close();
  for (const proxy of proxies) await proxy.close();
  await fleet?.close();
});

interface Watched {
  orgId: string;
  proxy: Proxy;
  tenants: Tenants;
}

/** A node whose only way to the provisioner is a proxy, with one route known and the change log heard. */
async function watch(): Promise<Watched> {
  const proxy = await openProxy({ host: '127.0.0.1', port: fleet.port });
  const transport = grpcTransport(`127.0.0.1:${proxy.port}`, { keepalive: PING });
  proxies.push(proxy);
  transports.push(transport);
  const tenants = await fleet.open({ routes: transport, silenceMs: SILENCE_MS });
  const orgId = fleet.orgs[next++]!;
  await tenants.read(orgId, () => Promise.resolve());
  while (!tenants.status().live) await delay(10);
  return { orgId, proxy, tenants };
}

/** The generation a read works under now; 0 where it is refused. */
function generation({ tenants, orgId }: Watched): Promise<number> {
  return tenants.read(orgId, (tx) => Promise.resolve(Number(tx.generation))).catch(() => 0);
}

/**
 * Breaks the stream so many bytes into what follows, changes the tenant, and reads on and on. Returns when the last read
 * under the old route began, counted from the change and from the reconnection after the fault.
 */
async function lastOld(
  watched: Watched,
  fault: Fault,
  state: TenantState,
): Promise<{ change: number; reconnect: number }> {
  const { proxy, orgId } = watched;
  const connections = proxy.accepted.length;
  proxy.break(fault);
  fleet.change(orgId, { state });
  const changed = performance.now();
  let last = changed;
  // Until well after the old route must be gone.
  const end = changed + 2_500;
  while (performance.now() < end) {
    const began = performance.now();
    if ((await generation(watched)) === 1) last = began;
    await delay(20);
  }
  const reconnected = proxy.accepted[connections];
  if (reconnected === undefined) throw new Error('the fault did not come about');
  return { change: last - changed, reconnect: last - reconnected };
}

describe('a stream of changes', () => {
  test('cut anywhere in a change serves the old route no longer than a second after it is back', async () => {
    const watched = await Promise.all(CUTS.map(() => watch()));
    const seen = await Promise.all(
      watched.map((one, n) => {
        // Moved and suspended in turn.
        const state = n % 2 === 0 ? TenantState.READY : TenantState.SUSPENDED;
        return lastOld(one, { kind: 'cut', afterBytes: CUTS[n]! }, state);
      }),
    );
    for (const { reconnect } of seen) expect(reconnect).toBeLessThan(1_000 + SLACK_MS);
    for (const [n, one] of watched.entries()) expect(await generation(one)).toBe(n % 2 === 0 ? 2 : 0);
  }, 60_000);

  test('that falls silent anywhere in a change is noticed, and the old route is gone a second later', async () => {
    const watched = await Promise.all(STALLS.map(() => watch()));
    const seen = await Promise.all(
      watched.map((one, n) => lastOld(one, { kind: 'stall', afterBytes: STALLS[n]! }, TenantState.READY)),
    );
    const bound = SILENCE_MS + PING.everyMs + PING.timeoutMs + 1_000 + SLACK_MS;
    for (const { change, reconnect } of seen) {
      expect(change).toBeLessThan(bound);
      expect(reconnect).toBeLessThan(1_000 + SLACK_MS);
    }
    for (const one of watched) expect(await generation(one)).toBe(2);
  }, 60_000);

  test('with more missed than one change is not believed before it has caught up', async () => {
    const watched = await watch();
    const { proxy, orgId, tenants } = watched;
    proxy.break({ kind: 'cut', afterBytes: 1 });
    // The tenant's own is the last of many.
    const crowd = fleet.orgs.filter((other) => other !== orgId);
    for (let n = 0; n < 500; n += 1) fleet.change(crowd[n % crowd.length]!, {});
    fleet.change(orgId, {});
    // The cut is noticed, then the log is heard again.
    while (tenants.status().live) await delay(1);
    while (!tenants.status().live) await delay(1);
    expect(await generation(watched)).toBe(2);
  }, 30_000);

  test('first heard while a route is being told does not leave the route of before in use', async () => {
    const orgId = fleet.orgs[next++]!;
    fleet.change(orgId, { state: TenantState.READ_ONLY });
    const told = Promise.withResolvers<void>();
    try {
      fleet.mute = true;
      fleet.held = told.promise;
      const tenants = await fleet.open();
      const { asked } = fleet;
      const seen = tenants.read(orgId, (tx) => Promise.resolve(Number(tx.generation)));
      await until(() => fleet.asked > asked, 'the route is looked up');
      fleet.change(orgId, { state: TenantState.READY });
      // Whoever listens anew hears where the log stands, and nothing of the change before.
      fleet.cut();
      fleet.mute = false;
      await until(() => tenants.status().live, 'the log is heard');
      told.resolve();
      expect(await seen).toBe(Number(fleet.route(orgId).generation));
      // While nothing else changes, nobody asks again.
      await tenants.transact(orgId, (tx) => tx.execute(`INSERT INTO notes.notes (body) VALUES ('written')`));
    } finally {
      told.resolve();
      fleet.heal();
    }
  }, 30_000);

  test('with the provisioner out of reach the last route serves, and nobody waits for it twice a second', async () => {
    const watched = await watch();
    watched.proxy.silent = true;
    watched.proxy.break({ kind: 'stall', afterBytes: 0 });
    await delay(SILENCE_MS + 1_200);
    const began = performance.now();
    let slow = 0;
    while (performance.now() - began < 4_000) {
      const asked = performance.now();
      expect(await generation(watched)).toBeGreaterThan(0);
      if (performance.now() - asked > 500) slow += 1;
      await delay(5);
    }
    expect(slow).toBeLessThanOrEqual(3);
  }, 30_000);
});
