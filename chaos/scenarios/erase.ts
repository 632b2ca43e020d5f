import { sleep, uuidv7 } from '@mad/process';
import { OrganizationService } from '@mad/proto/identity';
import { ErasureService } from '@mad/proto/provisioner';
import { Ledger } from '../ledger.ts';
import { killInOperations, orphansAfter } from '../operations.ts';
import type { Scenario } from '../scenario.ts';
import { insist } from '../system.ts';

const WRITING_MS = 200;

/** Organizations are erased; a bystander's client goes on writing. */
export const erase: Scenario = {
  name: 'erase',
  weight: 21,
  async run(chaos, kills) {
    const { system } = chaos;
    const bystander = await system.newOrganization();
    const ledger = new Ledger(system, bystander.orgId);
    try {
      await ledger.begin();
      const seen = await killInOperations(chaos, kills, {
        kind: 'erase',
        async ask() {
          const { orgId, slug } = await system.newOrganization();
          const written = new Ledger(system, orgId);
          await written.begin();
          await sleep(WRITING_MS);
          await written.close();
          const requestId = uuidv7();
          const organizations = (await system.platform()).client(OrganizationService);
          const call = () => organizations.eraseOrganization({ orgId, slug, requestId, reason: 'chaos' });
          return { orgId, call };
        },
        async ended(orgId, { state, error }) {
          if (state !== 'succeeded') return [`an erasure ended ${state}: ${error}`];
          const erasures = (await system.platform()).client(ErasureService);
          const [erasure] = await system.metadata<{ id: string }>(
            'SELECT erasure_id AS id FROM provisioner.erasure_records WHERE org_id = $1',
            orgId,
          );
          if (erasure === undefined) return [`${orgId} was erased without a record`];
          return (await insist(() => erasures.verifyErasure({ erasureId: erasure.id }))).problems;
        },
      });
      await ledger.pause();
      const difference = await ledger.compare();
      const { orphans, problems, differences } = await orphansAfter(chaos);
      const notes = { ...seen.notes, acknowledged: ledger.acknowledged.size, refused: ledger.refused };
      return { ...seen, orphans, ...difference, notes, problems: [...seen.problems, ...problems, ...differences] };
    } finally {
      await ledger.close();
    }
  },
};
