import type { JsonObject, JsonValue } from '@bufbuild/protobuf';

/** Raised when the text below changes its meaning; every earlier result is then a miss. */
export const SIGNATURE_VERSION = 1;

/**
 * Parameters that change how a task is run and not what comes out: they are neither hashed nor handed to the engine.
 */
const OUTSIDE = new Set([
  'cpu',
  'cores',
  'priority',
  'labels',
  'job_id',
  'org_id',
  'timeout',
  'timeout_ms',
  'timeout_s',
]);

/** How many independent searches a task makes of each molecule, by its parameter. */
const REPLICAS = 'replicas';

/** A parameter that has no signature. `field` is its path. */
export class SignatureError extends Error {
  override readonly name = 'SignatureError';
  readonly field: string;

  constructor(field: string, description: string) {
    super(`${field}: ${description}`);
    this.field = field;
  }
}

/** Everything of a task that determines its results, besides the molecule. */
export interface SignedPlan {
  /** The engine with its version, e.g. "vina@1.2.3". */
  engine: string;
  /** How inputs are prepared for it. */
  recipe: string;
  rdkitVersion: string;
  cacheVersion: number;
  /** Defaults filled in, unknown ones refused. */
  parameters: JsonObject;
  /** sha256 (hex) of the canonical content of each artifact, by the parameter that names it, e.g. "receptor". */
  artifacts: Readonly<Record<string, string>>;
}

/** To 3 decimals, and no negative zero. Finite only: JSON has no other numbers, but callers may. */
function canonicalNumber(value: number, field: string): number {
  if (!Number.isFinite(value)) throw new SignatureError(field, 'must be finite');
  return Number.isInteger(value) ? value + 0 : Number(value.toFixed(3)) + 0;
}

function canonical(value: JsonValue, field: string): JsonValue {
  if (typeof value === 'number') return canonicalNumber(value, field);
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return value.map((element, index) => canonical(element, `${field}[${index}]`));
  return canonicalObject(value, (key) => `${field}.${key}`);
}

function canonicalObject(value: JsonObject, fieldOf: (key: string) => string): JsonObject {
  const keys = Object.keys(value).sort();
  return Object.fromEntries(keys.map((key) => [key, canonical(value[key]!, fieldOf(key))]));
}

/**
 * The parameters as they are hashed and as the engine runs them (run what you hash): keys sorted, floats to 3 decimals,
 * −0 as 0, without what does not determine the result and without the artifacts' ids (their content counts). A seed
 * must be a whole number other than 0, which means "random" to Vina. Throws a SignatureError naming the parameter.
 */
export function canonicalParameters(parameters: JsonObject, artifactNames: Iterable<string> = []): JsonObject {
  const out = new Set([...OUTSIDE, ...artifactNames]);
  const kept = Object.fromEntries(Object.entries(parameters).filter(([key]) => !out.has(key)));
  if ('seed' in kept && (!Number.isSafeInteger(kept['seed']) || kept['seed'] === 0)) {
    throw new SignatureError('seed', 'must be a whole number other than 0');
  }
  return canonicalObject(kept, (key) => key);
}

/** The ligand: the first token of a SMILES line, names behind it dropped. Throws a SignatureError when there is none. */
export function ligandOf(smiles: string): string {
  const ligand = smiles.trimStart().split(/\s/, 1)[0]!;
  if (!/^[\x21-\x7e]+$/.test(ligand)) throw new SignatureError('smiles', 'must be printable ASCII');
  return ligand;
}

/**
 * The text whose sha256 is the input signature of a molecule in this task: JSON with sorted keys. `smiles` is canonical
 * (RDKit's, isomeric). The task's part is made once, so that a million molecules cost little.
 */
export function signatureText(plan: SignedPlan): (smiles: string) => string {
  for (const [parameter, sha256] of Object.entries(plan.artifacts)) {
    if (!/^[0-9a-f]{64}$/.test(sha256)) throw new SignatureError(parameter, 'must have a sha256');
  }
  // In alphabetical order; "ligand" is the only key that differs between the molecules of a task.
  const before = JSON.stringify({
    artifacts: canonicalObject({ ...plan.artifacts }, (key) => key),
    cache_version: plan.cacheVersion,
    engine: plan.engine,
  });
  const after = JSON.stringify({
    parameters: canonicalParameters(plan.parameters, Object.keys(plan.artifacts)),
    rdkit_version: plan.rdkitVersion,
    recipe: plan.recipe,
    signature_version: SIGNATURE_VERSION,
  });
  return (smiles) => `${before.slice(0, -1)},"ligand":${JSON.stringify(ligandOf(smiles))},${after.slice(1)}`;
}

/** How many replicas a task makes; undefined when it makes none. */
export function replicasOf({ parameters }: SignedPlan): number | undefined {
  const replicas = parameters[REPLICAS];
  return typeof replicas === 'number' && Number.isInteger(replicas) && replicas >= 1 ? replicas : undefined;
}

/**
 * As `signatureText`, without the number of replicas: searches whose texts are equal differ in nothing else, and since seeds
 * count up from the first, the smaller one's replicas are the first of the larger one.
 */
export function familyText(plan: SignedPlan): (smiles: string) => string {
  const parameters = Object.fromEntries(Object.entries(plan.parameters).filter(([name]) => name !== REPLICAS));
  return signatureText({ ...plan, parameters });
}
