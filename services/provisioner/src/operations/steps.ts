import type { StepName } from '../domain/plan.ts';
import { BESIDE_STEPS } from '../backups/beside.ts';
import { BACKUP_STEPS } from '../backups/steps.ts';
import { REPAIR_STEPS } from '../drift/steps.ts';
import { INDEX_STEPS } from '../indexes/steps.ts';
import { MOVE_STEPS } from '../move/steps.ts';
import { ERASURE_STEPS } from '../erasure/steps.ts';
import { PROVISIONING_STEPS, type Step } from '../provisioning/steps.ts';
import { ROTATION_STEPS } from '../rotation/steps.ts';

/** Every step by name. Each may be begun anew after any crash. */
export const STEPS: Readonly<Record<StepName, Step>> = {
  ...PROVISIONING_STEPS,
  ...ROTATION_STEPS,
  ...BACKUP_STEPS,
  ...BESIDE_STEPS,
  ...REPAIR_STEPS,
  ...INDEX_STEPS,
  ...MOVE_STEPS,
  ...ERASURE_STEPS,
};
