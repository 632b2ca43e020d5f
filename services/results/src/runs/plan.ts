import { toJson, type JsonObject } from '@bufbuild/protobuf';
import { TaskPlanSchema, type TaskPlan } from '@mad/proto/results';
import { invalid } from '@mad/rpc';
import {
  canonicalParameters,
  familyText,
  replicasOf,
  SignatureError,
  signatureText,
  type SignedPlan,
} from '../domain/input-signature.ts';

/** The plan's artifacts by parameter, each by the sha256 of its canonical content. */
function artifactsOf(plan: TaskPlan): Record<string, string> {
  return Object.fromEntries(plan.artifacts.map(({ parameter, sha256 }) => [parameter, sha256]));
}

/** The parameters as they are hashed and as the engine runs them. */
export function runParameters(plan: TaskPlan): JsonObject {
  return canonicalParameters(plan.parameters ?? {}, Object.keys(artifactsOf(plan)));
}

/** What of the plan determines results, besides the molecule. */
export function signedPlanOf(plan: TaskPlan): SignedPlan {
  const { engine, recipe, rdkitVersion, cacheVersion, parameters = {} } = plan;
  return { engine, recipe, rdkitVersion, cacheVersion, parameters, artifacts: artifactsOf(plan) };
}

/** The text to hash for a molecule in this task. */
export function signatureTextOf(plan: TaskPlan): (smiles: string) => string {
  return signatureText(signedPlanOf(plan));
}

/** How many replicas a task makes, and the text to hash for a molecule's family; undefined when it makes none. */
export function familyOf(plan: TaskPlan): { replicas: number; textOf: (smiles: string) => string } | undefined {
  const signed = signedPlanOf(plan);
  const replicas = replicasOf(signed);
  return replicas === undefined ? undefined : { replicas, textOf: familyText(signed) };
}

export function planJson(plan: TaskPlan): string {
  return JSON.stringify(toJson(TaskPlanSchema, plan));
}

/** Refuses what catalog should never send: ids twice, tasks before what they depend on, parameters without signature. */
export function checkPlans(plans: readonly TaskPlan[]): void {
  const known = new Set<string>();
  for (const [index, plan] of plans.entries()) {
    const field = `tasks[${index}]`;
    if (known.has(plan.taskId)) throw invalid(`${field}.task_id`, 'is given twice');
    const unknown = plan.dependsOn.find((taskId) => !known.has(taskId));
    if (unknown !== undefined) throw invalid(`${field}.depends_on`, `${unknown} does not come before this task`);
    known.add(plan.taskId);
    try {
      signatureTextOf(plan);
    } catch (error) {
      throw fieldError(error, `${field}.parameters`);
    }
  }
}

function fieldError(error: unknown, field: string): unknown {
  return error instanceof SignatureError ? invalid(`${field}.${error.field}`, error.message) : error;
}
