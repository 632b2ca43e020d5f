import { MINUTE_MS, sleep, uuidv7 } from '@mad/process';
import { DriftService, RolloutService, RolloutState, TenantService } from '@mad/proto/provisioner';
import { resultsMigrations } from '@mad/results';
import { Ledger } from '../ledger.ts';
import { leastKilled, orphansAfter, VICTIMS } from '../operations.ts';
import type { Chaos, Scenario } from '../scenario.ts';
import { insist, SCHEMA } from '../system.ts';
import { STAGES, strikeAt, type Way } from './rollout-stages.ts';

const LOOK_MS = 100;
/** Of the rollout's waves; what else there is comes with the last one. */
const TENANTS = { staging: 2, canary: 2, wave: 2 };
/** Rollouts in a row that were over before anybody was killed. */
const MAX_IDLE = 10;
const WAYS: readonly Way[] = ['up', 'back'];
const newest = resultsMigrations.at(-1)!;

/** The newest migration goes back and forth through a few organizations, one of which is written to. */
export const rollout: Scenario = {
  name: 'rollout',
  weight: 21,
  async run(chaos, kills) {
    const { system } = chaos;
    const orgs: string[] = [];
    for (const [label, count] of Object.entries(TENANTS)) {
      for (let n = 0; n < count; n += 1) orgs.push(await labelled(chaos, label));
    }
    const ledger = new Ledger(system, orgs[0]!);
    try {
      await stepBack(chaos, orgs);
      await ledger.begin();
      const problems: string[] = [];
      const died = new Map<string, number>(
        WAYS.flatMap((way) => STAGES[way].map((stage) => `${way} ${stage}`)).flatMap((at) =>
          VICTIMS.map((victim) => [`${at} ${victim}`, 0] as const),
        ),
      );
      const endings: Record<string, number> = {};
      let done = 0;
      let up: string | undefined;
      let idle = 0;
      while (done < kills && idle < MAX_IDLE) {
        const before = done;
        const rolloutId = up ?? (await started(chaos));
        const way: Way = up === undefined ? 'up' : 'back';
        if (up !== undefined) await rollBack(chaos, up);
        for (const stage of STAGES[way]) {
          if (done >= kills) break;
          const at = `${way} ${stage}`;
          const victim = leastKilled(chaos, died, at);
          // Those who have seen their deaths here leave the rollout to later stages.
          if (died.get(`${at} ${victim}`)! > Math.min(...died.values())) continue;
          if (!(await strikeAt(chaos, { rolloutId, orgs, stage, victim }))) continue;
          died.set(`${at} ${victim}`, died.get(`${at} ${victim}`)! + 1);
          done += 1;
          chaos.progress(`${done} of ${kills}: ${victim} at ${at}`);
        }
        const state = await endedWell(chaos, rolloutId);
        endings[`${way} ${RolloutState[state]}`] = (endings[`${way} ${RolloutState[state]}`] ?? 0) + 1;
        const wanted = way === 'up' ? orgs.length : 0;
        const migrated = await countMigrated(chaos, orgs);
        if (migrated !== wanted) problems.push(`${way}: ${migrated} of ${orgs.length} are migrated, not ${wanted}`);
        up = way === 'up' ? rolloutId : undefined;
        idle = done === before ? idle + 1 : 0;
      }
      if (up === undefined) await endedWell(chaos, await started(chaos));
      await ledger.pause();
      const difference = await ledger.compare();
      const drift = await insist(async () => (await system.platform()).client(DriftService).listDrift({}));
      for (const { orgId, differences, error } of drift.tenants)
        if (differences.length > 0 || error !== '') problems.push(`${orgId} drifted: ${differences.length} ${error}`);
      const never = [...died].filter(([, times]) => times === 0).map(([where]) => where);
      if (kills >= died.size && never.length > 0) problems.push(`nobody was killed at ${never.join(', ')}`);
      const after = await orphansAfter(chaos);
      const notes = {
        died: Object.fromEntries(died),
        endings,
        acknowledged: ledger.acknowledged.size,
        refused: ledger.refused,
      };
      problems.push(...after.problems, ...after.differences);
      return { kills: done, orphans: after.orphans, ...difference, problems, notes };
    } finally {
      await ledger.close();
    }
  },
};

/** An organization of one of the waves, by its label. */
async function labelled({ system }: Chaos, label: string): Promise<string> {
  const { orgId } = await system.newOrganization();
  const tenants = (await system.platform()).client(TenantService);
  await insist(() => tenants.labelTenant({ orgId, schema: SCHEMA, labels: { [label]: '' } }));
  return orgId;
}

/** As if the newest release were not out yet: its migration is taken back by its own SQL. */
async function stepBack({ system }: Chaos, orgs: readonly string[]): Promise<void> {
  for (const orgId of orgs)
    await system.inside(
      orgId,
      `BEGIN; SET LOCAL ROLE mad_results_owner; SET LOCAL search_path = ${SCHEMA}, public; ${newest.sql.down};
       DELETE FROM ${SCHEMA}.migrations WHERE name = '${newest.migrationName}'; COMMIT`,
    );
}

async function started({ system }: Chaos): Promise<string> {
  const requestId = uuidv7();
  const { rollout: made } = await insist(async () =>
    (await system.platform())
      .client(RolloutService)
      .startRollout({ schema: SCHEMA, rules: { canaries: TENANTS.canary }, requestId }),
  );
  return made!.rolloutId;
}

const rollBack = ({ system }: Chaos, rolloutId: string) =>
  insist(async () => {
    const rollouts = (await system.platform()).client(RolloutService);
    const { rollout: now } = await rollouts.getRollout({ rolloutId });
    // A call whose answer was lost has begun it.
    if (now!.state === RolloutState.SUCCEEDED) await rollouts.rollBackRollout({ rolloutId });
  });

/** Waits for the end of every tenant, queued ones too; a rollout that stopped on failures is resumed, as an operator would. */
async function endedWell(chaos: Chaos, rolloutId: string): Promise<RolloutState> {
  for (const until = performance.now() + 3 * MINUTE_MS; ; await sleep(LOOK_MS)) {
    const rollouts = (await chaos.system.platform()).client(RolloutService);
    const { rollout: now } = await insist(() => rollouts.getRollout({ rolloutId }));
    const { state, reason, counts } = now!;
    const { pending, running, queued, failed } = counts!;
    const ended = state === RolloutState.SUCCEEDED || state === RolloutState.ROLLED_BACK;
    if (ended && pending + running + queued + failed === 0) return state;
    if (state === RolloutState.HALTED || (ended && failed > 0)) {
      await rollouts.resumeRollout({ rolloutId }).catch(() => undefined);
    }
    if (performance.now() >= until) {
      const left = `${pending} pending, ${running} running, ${queued} queued, ${failed} failed`;
      throw new Error(`the rollout is ${RolloutState[state]}: ${reason}; ${left}`);
    }
  }
}

async function countMigrated({ system }: Chaos, orgs: readonly string[]): Promise<number> {
  let migrated = 0;
  for (const orgId of orgs)
    migrated += (await system.inside(orgId, `SELECT FROM ${SCHEMA}.migrations WHERE name = $1`, newest.migrationName))
      .length;
  return migrated;
}
