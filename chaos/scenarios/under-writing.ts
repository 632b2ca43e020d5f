import { Ledger } from '../ledger.ts';
import { killInOperations, orphansAfter, type Killed } from '../operations.ts';
import type { Chaos, Outcome } from '../scenario.ts';
import type { ChaosOrganization } from '../system.ts';

/** Operations on one organization's database while a client writes to it. */
export async function underWriting(
  chaos: Chaos,
  kills: number,
  killed: (org: ChaosOrganization, ledger: Ledger) => Killed,
): Promise<Outcome> {
  const org = await chaos.system.newOrganization();
  const ledger = new Ledger(chaos.system, org.orgId);
  try {
    await ledger.begin();
    const seen = await killInOperations(chaos, kills, killed(org, ledger));
    await ledger.pause();
    const difference = await ledger.compare();
    const { orphans, problems, differences } = await orphansAfter(chaos);
    const notes = { ...seen.notes, acknowledged: ledger.acknowledged.size, refused: ledger.refused };
    return { ...seen, orphans, ...difference, notes, problems: [...seen.problems, ...problems, ...differences] };
  } finally {
    await ledger.close();
  }
}

/** For operations that nothing but themselves may end otherwise than well. */
export const mustSucceed = (_orgId: string, { state, error }: { state: string; error: string }): Promise<string[]> =>
  Promise.resolve(state === 'succeeded' ? [] : [`an operation ended ${state}: ${error}`]);
