import { MINUTE_MS, sleep, uuidv7 } from '@mad/process';
import { DriftService, RolloutService, RolloutState } from '@mad/proto/provisioner';
import { resultsMigrations } from '@mad/results';
import { Ledger } from '../ledger.ts';
import { orphansAfter, VICTIMS } from '../operations.ts';
import type { Chaos, Scenario } from '../scenario.ts';
import { insist, SCHEMA } from '../system.ts';

const TENANTS = 6;
const LOOK_MS = 10;
const KILL_WITHIN_MS = 60;
/** Rollouts in a row that were over before anybody was killed. */
const MAX_IDLE = 10;
const newest = resultsMigrations.at(-1)!;

/** The newest migration goes back and forth through a few organizations, one of which is written to. */
export const rollout: Scenario = {
  name: 'rollout',
  weight: 12,
  async run(chaos, kills) {
    const { system } = chaos;
    const orgs: string[] = [];
    for (let n = 0; n < TENANTS; n += 1) orgs.push((await system.newOrganization()).orgId);
    const ledger = new Ledger(system, orgs[0]!);
    try {
      await stepBack(chaos, orgs);
      await ledger.begin();
      const problems: string[] = [];
      const endings: Record<string, number> = {};
      let done = 0;
      let up: string | undefined;
      let idle = 0;
      while (done < kills && idle < MAX_IDLE) {
        const before = done;
        const rolloutId = up ?? (await started(chaos));
        const way = up === undefined ? 'up' : 'back';
        if (up !== undefined) await rollBack(chaos, up);
        done += await killWhileRunning(chaos, rolloutId, kills - done);
        const state = await endedWell(chaos, rolloutId);
        endings[`${way} ${RolloutState[state]}`] = (endings[`${way} ${RolloutState[state]}`] ?? 0) + 1;
        const wanted = way === 'up' ? TENANTS : 0;
        const migrated = await countMigrated(chaos, orgs);
        if (migrated !== wanted) problems.push(`${way}: ${migrated} of ${TENANTS} are migrated, not ${wanted}`);
        up = way === 'up' ? rolloutId : undefined;
        chaos.progress(`${done} of ${kills}: ${way}`);
        idle = done === before ? idle + 1 : 0;
      }
      if (up === undefined) await endedWell(chaos, await started(chaos));
      await ledger.pause();
      const difference = await ledger.compare();
      const drift = await insist(async () => (await system.platform()).client(DriftService).listDrift({}));
      for (const { orgId, differences, error } of drift.tenants)
        if (differences.length > 0 || error !== '') problems.push(`${orgId} drifted: ${differences.length} ${error}`);
      const after = await orphansAfter(chaos);
      const notes = { endings, acknowledged: ledger.acknowledged.size, refused: ledger.refused };
      problems.push(...after.problems, ...after.differences);
      return { kills: done, orphans: after.orphans, ...difference, problems, notes };
    } finally {
      await ledger.close();
    }
  },
};

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
    (await system.platform()).client(RolloutService).startRollout({ schema: SCHEMA, requestId }),
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

const stateOf = async ({ system }: Chaos, rolloutId: string): Promise<string> =>
  (
    await system.metadata<{ state: string }>(
      'SELECT state FROM provisioner.migration_rollouts WHERE rollout_id = $1',
      rolloutId,
    )
  )[0]!.state;

/** Kills whoever's turn it is at random moments while the rollout goes on; answers how many died. */
async function killWhileRunning(chaos: Chaos, rolloutId: string, atMost: number): Promise<number> {
  const { system, random } = chaos;
  const isRunning = async () => ['running', 'rolling_back'].includes(await stateOf(chaos, rolloutId));
  let kills = 0;
  for (; kills < atMost && kills < TENANTS; kills += 1) {
    await sleep(random() * KILL_WITHIN_MS);
    if (!(await isRunning())) break;
    const victim = VICTIMS[Math.floor(random() * VICTIMS.length)]!;
    if (victim === 'postgres') await system.crashServer(random() < 0.5 ? 'local' : 'second');
    else await system.restart(victim);
  }
  return kills;
}

/** Waits for the end of every tenant, queued ones too; a rollout that stopped on failures is resumed, as an operator would. */
async function endedWell(chaos: Chaos, rolloutId: string): Promise<RolloutState> {
  for (const until = performance.now() + 3 * MINUTE_MS; ; await sleep(LOOK_MS * 10)) {
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
