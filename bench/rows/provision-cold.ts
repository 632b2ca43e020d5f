import { createClient } from '@connectrpc/connect';
import { TenantService } from '@mad/proto/provisioner';
import pg from 'pg';
import { interleave, millisecondsOf } from '../measure.ts';
import { scaled, type Row } from '../row.ts';
import { ensureTenant } from '../system.ts';

/** An organization's database made from the template, without stock: what a new customer waits for. */
export const provisionCold: Row = {
  name: 'provision-cold',
  async run(bench) {
    const system = await bench.system();
    const tenants = createClient(TenantService, system.transport('provisioner', 'identity'));
    const admin = await system.admin('postgres');
    try {
      // Round 0 makes the template.
      const samples = await interleave(
        scaled(bench, 25, 2),
        {
          async ours() {
            const orgId = await system.addOrganization();
            return millisecondsOf(() => ensureTenant(tenants, orgId));
          },
          floor: (round) =>
            millisecondsOf(() => admin.query(`CREATE DATABASE ${pg.escapeIdentifier(`bench_floor_${round}`)}`)),
        },
        (round) => round % 5 === 0 && bench.progress(`round ${round}`),
      );
      return [{ name: 'provision-cold', unit: 'ms', target: { of: 'ratio', atMost: 1.6 }, ...samples }];
    } finally {
      await admin.end();
    }
  },
};
