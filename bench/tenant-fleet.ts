import { createClient } from '@connectrpc/connect';
import { createLogger, uuidv7 } from '@mad/process';
import { RouteService, TenantService, type Route } from '@mad/proto/provisioner';
import { resultsEntities } from '@mad/results';
import { openTenants, type Tenants } from '@mad/tenancy';
import type pg from 'pg';
import type { Bench } from './row.ts';
import { ensureTenant, SCHEMA, startSystem, type BenchSystem } from './system.ts';

/** What a read of the fleet rows is: one row by its key. */
export const READ_SQL = 'SELECT job_id, status, requested FROM results.jobs WHERE job_id = $1';
export const NO_JOB = '00000000-0000-7000-8000-000000000000';
const MAKING = 4;

/** Ours, a peer's and the services' fit beside each other: what is compared is how each keeps within its own 80. */
const SERVER_SETTINGS = { max_connections: '400' };

/** Many organizations in a system of their own, so that no other row pays for a thousand databases on its server. */
export interface BenchFleet {
  system: BenchSystem;
  routes: Route[];
  admin: pg.Client;
  open(): Promise<Tenants>;
  close(): Promise<void>;
}

/** Has the provisioner make `size` tenants, as it would for customers. */
export async function openBenchFleet(bench: Bench, size: number): Promise<BenchFleet> {
  const system = await startSystem({ postgres: SERVER_SETTINGS });
  const opened: Tenants[] = [];
  try {
    const orgs = Array.from({ length: size }, () => uuidv7());
    const identity = await system.admin(system.place.database);
    await identity.query(
      `INSERT INTO identity.organizations (org_id, name, slug, status, region, quotas)
       SELECT org_id, 'bench-' || org_id, 'bench-' || org_id, 'active', 'local', '{}' FROM unnest($1::uuid[]) org_id`,
      [orgs],
    );
    await identity.end();
    const tenants = createClient(TenantService, system.transport('provisioner', 'identity'));
    const locator = createClient(RouteService, system.transport('provisioner', 'results'));
    const routes: Route[] = [];
    const rest = [...orgs];
    await Promise.all(
      Array.from({ length: MAKING }, async () => {
        for (let orgId = rest.pop(); orgId !== undefined; orgId = rest.pop()) {
          await ensureTenant(tenants, orgId);
          routes.push((await locator.getRoute({ orgId, schema: SCHEMA })).route!);
          if (routes.length % 100 === 0) bench.progress(`${routes.length} of ${size} databases made`);
        }
      }),
    );
    const admin = await system.admin('postgres');
    await admin.query('CHECKPOINT');
    return {
      system,
      routes,
      admin,
      async open() {
        const one = await openTenants({
          schema: SCHEMA,
          entities: resultsEntities,
          routes: system.transport('provisioner', 'results'),
          node: 'bench',
          logger: createLogger('bench', { level: 'silent' }),
        });
        opened.push(one);
        return one;
      },
      async close() {
        await Promise.all(opened.map((one) => one.close()));
        await admin.end();
        await system.close();
      },
    };
  } catch (error) {
    await system.close();
    throw error;
  }
}
