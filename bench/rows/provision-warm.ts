import { createClient } from '@connectrpc/connect';
import { SECOND_MS, sleep } from '@mad/process';
import { TenantService } from '@mad/proto/provisioner';
import pg from 'pg';
import { interleave, millisecondsOf } from '../measure.ts';
import { scaled, type Row } from '../row.ts';
import { ensureTenant, startSystem, type BenchSystem } from '../system.ts';

const STOCKING_MS = 120 * SECOND_MS;

/** An organization's database claimed from the stock: what a new customer waits for where clones wait. */
export const provisionWarm: Row = {
  name: 'provision-warm',
  async run(bench) {
    const rounds = scaled(bench, 25, 2);
    // A few more than the rounds take, so that the keeper's own work between them is rare.
    const size = rounds + 10;
    const system = await startSystem({
      services: { PROVISIONER_STOCK_SIZE: String(size), PROVISIONER_STOCK_PER_MINUTE: '6000' },
    });
    try {
      const tenants = createClient(TenantService, system.transport('provisioner', 'identity'));
      // The first one makes the template that the others are cloned from.
      await ensureTenant(tenants, await system.addOrganization());
      await stocked(system, size, (ready) => bench.progress(`${ready} of ${size} in stock`));
      const admin = await system.admin('postgres');
      try {
        const samples = await interleave(rounds, {
          async ours() {
            const orgId = await system.addOrganization();
            return millisecondsOf(() => ensureTenant(tenants, orgId));
          },
          floor: (round) =>
            millisecondsOf(() => admin.query(`CREATE DATABASE ${pg.escapeIdentifier(`bench_floor_${round}`)}`)),
        });
        return [{ name: 'provision-warm', unit: 'ms', target: { of: 'ratio', atMost: 1 }, ...samples }];
      } finally {
        await admin.end();
      }
    } finally {
      await system.close();
    }
  },
};

async function stocked(system: BenchSystem, size: number, progress: (ready: number) => void): Promise<void> {
  const metadata = await system.admin(system.place.database);
  try {
    for (const deadline = Date.now() + STOCKING_MS; ; await sleep(SECOND_MS)) {
      const { rows } = await metadata.query<{ ready: number }>(
        `SELECT count(*)::int AS ready FROM provisioner.tenant_stock WHERE state = 'ready'`,
      );
      const { ready } = rows[0]!;
      progress(ready);
      if (ready >= size) return;
      if (Date.now() > deadline) throw new Error(`only ${ready} of ${size} clones were made in time`);
    }
  } finally {
    await metadata.end();
  }
}
