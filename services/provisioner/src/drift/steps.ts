import { createHash } from 'node:crypto';
import { SECOND_MS } from '@mad/process';
import { watched } from '../backups/watched.ts';
import type { Difference } from '../domain/schema-difference.ts';
import type { StepName } from '../domain/plan.ts';
import { planRepair, stepText, type Repair } from '../domain/repair.ts';
import { noteResult, readResult } from '../operations/lease.ts';
import type { Step } from '../provisioning/steps.ts';
import { buildIndex, untilGivenUp } from './build-index.ts';
import { asOwnerInside, lookForDrift } from './look.ts';
import { lookAndNote } from './noted.ts';

const LOCK_WAIT_MS = 5 * SECOND_MS;

/** A repair, and the name of exactly this one. */
export interface PlannedRepair extends Repair {
  statements: string[];
  digest: string;
}

export function repairOf(schema: string, differences: readonly Difference[]): PlannedRepair {
  const repair = planRepair(schema, differences);
  const statements = repair.steps.map(stepText);
  return { ...repair, statements, digest: createHash('sha256').update(JSON.stringify(statements)).digest('hex') };
}

/** What an operation that repairs is told. */
export interface RepairParams {
  plan_digest: string;
}

export const REPAIR_STEPS = {
  async repair(context, client, { tenant, server }, held, stop) {
    const { database, connections } = context;
    const { plan_digest: wanted } = held.params as unknown as RepairParams;
    const { differences } = await lookForDrift(context, server, tenant, client);
    const { steps, digest, left } = repairOf(tenant.schema, differences);
    // A run before this one may have done a part: what is left of its plan is another plan.
    const { begun = false } = await readResult(database, held);
    if (!begun && digest !== wanted)
      throw new Error('the database has changed since the repair was planned: plan it anew');
    await database.asSystem((tx) => noteResult(tx, held, { begun: true, left: left.length }));
    await watched(database, held, stop, (_progress, signal) =>
      asOwnerInside(connections, server, tenant, (inside) =>
        untilGivenUp(inside, signal, async () => {
          for (const step of steps) {
            if ('index' in step) await buildIndex(inside, tenant.schema, step.index);
            else {
              await inside.query(`SET lock_timeout = ${LOCK_WAIT_MS}`);
              await inside.query(step.sql);
            }
          }
        }),
      ),
    );
    const after = await lookAndNote(context, server, tenant);
    const again = repairOf(tenant.schema, after.differences).statements;
    if (again.length > 0) throw new Error(`not repaired: ${again.join('; ')}`);
  },
} satisfies Partial<Record<StepName, Step>>;
