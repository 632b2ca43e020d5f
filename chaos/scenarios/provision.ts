import { sleep, uuidv7 } from '@mad/process';
import { OrganizationService } from '@mad/proto/identity';
import { Ledger } from '../ledger.ts';
import { killInOperations, orphansAfter, untilReady } from '../operations.ts';
import type { Scenario } from '../scenario.ts';
import { insist } from '../system.ts';

const WRITING_MS = 200;

/** Organizations are made, each with its database, while whoever makes it is killed. */
export const provision: Scenario = {
  name: 'provision',
  weight: 9,
  async run(chaos, kills) {
    const { system } = chaos;
    let [lost, doubled] = [0, 0];
    const seen = await killInOperations(chaos, kills, {
      kind: 'provision',
      async ask() {
        const slug = `chaos-${uuidv7().slice(-12)}`;
        const requestId = uuidv7();
        const { organization } = await insist(async () =>
          (await system.platform()).client(OrganizationService).createOrganization({ requestId, slug, name: slug }),
        );
        // Identity orders the database by itself.
        return { orgId: organization!.orgId, call: () => Promise.resolve() };
      },
      async ended(orgId) {
        // One that failed goes on when it is asked for again, as it is by the first who signs in.
        await untilReady(chaos, orgId);
        const ledger = new Ledger(system, orgId);
        await ledger.begin();
        await sleep(WRITING_MS);
        await ledger.pause();
        const difference = await ledger.compare();
        await ledger.close();
        lost += difference.lost;
        doubled += difference.doubled;
        return ledger.acknowledged.size > 0 ? [] : [`${orgId} cannot be written to`];
      },
    });
    const { orphans, problems, differences } = await orphansAfter(chaos);
    return { ...seen, orphans, lost, doubled, problems: [...seen.problems, ...problems, ...differences] };
  },
};
