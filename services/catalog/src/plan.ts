import type { JsonObject, MessageInitShape } from '@bufbuild/protobuf';
import { isRejected } from '@mad/chemistry';
import type { PipelineSpec } from '@mad/proto/catalog';
import type { TaskPlanSchema } from '@mad/proto/results';
import { invalid, invalidFields, requireStorable } from '@mad/rpc';
import type { CatalogContext } from './context.ts';
import { planJob, type PlannedTask } from './domain/job-plan.ts';
import type { Problem } from './domain/parameter-schema.ts';
import { specOf } from './rpc/pipeline.ts';

/** What a job runs, with nothing left to decide. */
export interface PlannedJob {
  /** The job's parameters, defaults filled in. */
  parameters: JsonObject;
  /** Upstream first. */
  tasks: MessageInitShape<typeof TaskPlanSchema>[];
}

/**
 * Plans a job of a published version: parameters checked and filled in, SMILES among them in canonical form (so that
 * another spelling of a reference is the same work), artifacts found in the organization and named by their content.
 * Throws INVALID_ARGUMENT naming `parameters.<name>`. Not to be called inside a transaction: it asks RDKit.
 */
export async function planTasks(
  context: CatalogContext,
  orgId: string,
  spec: PipelineSpec,
  parameters: JsonObject,
): Promise<PlannedJob> {
  requireStorable('parameters', parameters);
  const find = await context.taskDefinitions.of(orgId);
  const plan = planJob(specOf(spec), parameters, find, context.schemaValidator);
  if ('problems' in plan) throw invalidFields(plan.problems);
  const canonical = await canonicalSmiles(context, plan.tasks);
  const hashes = await artifactHashes(context, orgId, plan.tasks);
  return {
    parameters: plan.parameters,
    tasks: plan.tasks.map((task) => ({
      taskId: task.id,
      task: task.definition.taskId,
      engine: task.definition.engine,
      recipe: task.definition.serviceConfig.recipe,
      cacheVersion: task.definition.cacheVersion,
      deterministic: task.definition.deterministic,
      parameters: {
        ...task.parameters,
        ...Object.fromEntries(task.smiles.map(({ parameter, value }) => [parameter, canonical.get(value)!])),
      },
      dependsOn: task.dependsOn,
      chunkSize: task.definition.serviceConfig.chunk_size,
      cores: task.definition.serviceConfig.cores,
      memoryMb: task.definition.serviceConfig.memory_mb,
      artifacts: task.artifacts.map(({ parameter, value }) => {
        return { parameter, artifactId: value, sha256: hashes.get(value)! };
      }),
      scoreUnits: task.definition.metadata.score_units,
      lowerIsBetter: task.definition.metadata.lower_is_better,
      rdkitVersion: context.rdkitVersion,
    })),
  };
}

/** The canonical form of every SMILES among the parameters, by the SMILES as given. */
async function canonicalSmiles(context: CatalogContext, tasks: readonly PlannedTask[]): Promise<Map<string, string>> {
  const given = tasks.flatMap(({ smiles }) => smiles);
  const values = [...new Set(given.map(({ value }) => value))];
  if (values.length === 0) return new Map();
  const outcomes = await context.chemistry.normalize(values.map((smiles) => ({ smiles })));
  const canonical = new Map<string, string>();
  const problems: Problem[] = [];
  for (const [index, outcome] of outcomes.entries()) {
    const value = values[index]!;
    if (!isRejected(outcome)) canonical.set(value, outcome.canonicalSmiles);
    else problems.push({ field: given.find((one) => one.value === value)!.field, description: outcome.message });
  }
  if (problems.length > 0) throw invalidFields(problems);
  return canonical;
}

/** The sha256 of every artifact among the parameters, by its id. */
async function artifactHashes(
  context: CatalogContext,
  orgId: string,
  tasks: readonly PlannedTask[],
): Promise<Map<string, string>> {
  const named = tasks.flatMap(({ artifacts }) => artifacts);
  if (named.length === 0) return new Map();
  const rows = await context.database.inOrg(
    orgId,
    (tx) =>
      tx.query<{ artifact_id: string; purpose: string; sha256: string }>(
        'SELECT artifact_id, purpose, sha256 FROM catalog.artifacts WHERE org_id = $1 AND artifact_id = ANY($2)',
        [orgId, named.map(({ value }) => value)],
      ),
    { readOnly: true },
  );
  const found = new Map(rows.map((row) => [row.artifact_id, row]));
  const hashes = new Map<string, string>();
  for (const { value, field, purpose } of named) {
    const row = found.get(value.toLowerCase());
    if (!row) throw invalid(field, `there is no artifact ${value}`);
    if (purpose !== '' && row.purpose !== purpose)
      throw invalid(field, `takes a ${purpose}, not an artifact for ${row.purpose}`);
    hashes.set(value, row.sha256);
  }
  return hashes;
}
