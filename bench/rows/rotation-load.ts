import { setTimeout as delay } from 'node:timers/promises';
import { createClient } from '@connectrpc/connect';
import { MINUTE_MS, SECOND_MS, uuidv7 } from '@mad/process';
import { TenantService } from '@mad/proto/provisioner';
import { quantile } from '../regression.ts';
import { scaled, type Row } from '../row.ts';
import { SCHEMA } from '../system.ts';
import { NO_JOB, openBenchFleet, READ_SQL } from '../tenant-fleet.ts';

const READERS = 16;
const WRITERS = 4;
const EVERY_MS = 2 * SECOND_MS;
const WRITE_SQL = `INSERT INTO results.jobs (pipeline_version_id, status, input_signature, ended_at)
  VALUES (gen_random_uuid(), 'completed', repeat('ab', 32), now())`;

/** A tenant's login is replaced every two seconds while twenty clients work under it. */
export const rotationLoad: Row = {
  name: 'rotation-load',
  soak: true,
  async run(bench) {
    const fleet = await openBenchFleet(bench, 1);
    try {
      const [{ orgId }] = fleet.routes as [(typeof fleet.routes)[0]];
      const tenants = await fleet.open();
      const platform = createClient(TenantService, await fleet.system.platform('provisioner'));
      const end = performance.now() + scaled(bench, MINUTE_MS, 10 * SECOND_MS);
      const times: number[] = [];
      const failures: string[] = [];
      const client = async (call: () => Promise<unknown>): Promise<void> => {
        while (performance.now() < end) {
          const start = performance.now();
          await call().catch((error: unknown) => failures.push(String(error)));
          times.push(performance.now() - start);
        }
      };
      const load = [
        ...Array.from({ length: READERS }, () =>
          client(() => tenants.read(orgId, (tx) => tx.query(READ_SQL, [NO_JOB]))),
        ),
        ...Array.from({ length: WRITERS }, () => client(() => tenants.transact(orgId, (tx) => tx.query(WRITE_SQL)))),
      ];
      let rotations = 0;
      while (performance.now() < end) {
        const start = performance.now();
        await platform.rotateTenantCredentials({ orgId, schema: SCHEMA, requestId: uuidv7() });
        rotations += 1;
        if (rotations % 5 === 0) bench.progress(`${rotations} rotations, ${times.length} calls`);
        await delay(Math.max(0, Math.min(end - performance.now(), EVERY_MS - (performance.now() - start))));
      }
      await Promise.all(load);
      const notes = { calls: times.length, p99_ms: quantile(times, 0.99), errors: [...new Set(failures)].slice(0, 20) };
      return [
        {
          name: 'rotation-failures',
          unit: 'failed',
          target: { of: 'value', atMost: 0 },
          ours: [failures.length],
          notes,
        },
        { name: 'rotation-load', unit: 'rotations', ours: [rotations], notes },
        { name: 'rotation-calls', unit: 'calls', ours: [times.length], notes },
      ];
    } finally {
      await fleet.close();
    }
  },
};
