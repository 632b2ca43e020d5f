import { create } from '@bufbuild/protobuf';
import { createRouterTransport } from '@connectrpc/connect';
import { createLogger, SECOND_MS, sleep, uuidv7 } from '@mad/process';
import { RouteSchema, RouteService, TenantState } from '@mad/proto/provisioner';
import { RouteCache } from '../../libs/tenancy/src/route-cache.ts';
import { millisecondsOf, repeat } from '../measure.ts';
import { scaled, type Row } from '../row.ts';
import { SCHEMA } from '../system.ts';

const ORGANIZATIONS = 1_000;
const LOOKUPS = 500_000;
const HEARTBEAT_MS = SECOND_MS;

/** Where a tenant is, once it is known: what every read and write of a tenant asks first. */
export const routeLookup: Row = {
  name: 'route-lookup',
  async run(bench) {
    const orgIds = Array.from({ length: ORGANIZATIONS }, () => uuidv7());
    // The provisioner's side in memory: the row is about what happens while nobody asks it.
    const transport = createRouterTransport(({ service }) =>
      service(RouteService, {
        getRoute: ({ orgId }) => ({
          route: create(RouteSchema, { orgId, schema: SCHEMA, state: TenantState.READY, generation: 1n }),
        }),
        async *watchTenantChanges(_request, { signal }) {
          while (!signal.aborted) {
            yield { seq: 0n };
            await sleep(HEARTBEAT_MS, signal).catch(() => undefined);
          }
        },
      }),
    );
    const logger = createLogger('bench', { level: 'silent' });
    const routes = new RouteCache({
      transport,
      schema: SCHEMA,
      silenceMs: 5 * SECOND_MS,
      onChange: () => undefined,
      logger,
    });
    try {
      for (const orgId of orgIds) await routes.get(orgId);
      const lookups = scaled(bench, LOOKUPS, 10_000);
      const ours = await repeat(scaled(bench, 15, 3), async () => {
        // Lets the change log speak, without which nothing counts as known.
        await sleep(1);
        let found = 0;
        const ms = await millisecondsOf(async () => {
          for (let i = 0; i < lookups; i += 1) if (routes.peek(orgIds[(i * 7) % ORGANIZATIONS]!)) found += 1;
        });
        if (found !== lookups) throw new Error(`${lookups - found} of ${lookups} routes were not known`);
        return (ms / lookups) * 1000;
      });
      return [{ name: 'route-lookup', unit: 'µs', target: { of: 'value', atMost: 1 }, ours }];
    } finally {
      await routes.close();
    }
  },
};
