import type { JsonObject, JsonValue } from '@bufbuild/protobuf';
import { canonicalParameters, SIGNATURE_VERSION, type SignedPlan } from './input-signature.ts';

/** One component that two signatures of a molecule do not share; values as JSON, empty where there is none. */
export interface Difference {
  component: string;
  from: string;
  to: string;
}

/** A plan's part of a signature by component: objects open, so that one changed number is one component. */
function components(plan: SignedPlan): Map<string, string> {
  const { engine, recipe, rdkitVersion, cacheVersion, artifacts } = plan;
  const parameters = canonicalParameters(plan.parameters, Object.keys(artifacts));
  const found = new Map<string, string>();
  const note = (component: string, value: JsonValue): void => {
    if (isObject(value) && Object.keys(value).length > 0) {
      for (const [key, inner] of Object.entries(value)) note(`${component}.${key}`, inner);
    } else {
      found.set(component, JSON.stringify(value));
    }
  };
  note('engine', engine);
  note('recipe', recipe);
  note('rdkit_version', rdkitVersion);
  note('cache_version', cacheVersion);
  for (const [key, sha256] of Object.entries(artifacts)) note(`artifacts.${key}`, sha256);
  for (const [key, value] of Object.entries(parameters)) note(`parameters.${key}`, value);
  return found;
}

const isObject = (value: JsonValue): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * In what the signatures of one molecule differ between two plans, by component. Plans that differ in nothing gave other
 * signatures because the text that is hashed has changed since.
 */
export function differences(from: SignedPlan, to: SignedPlan): Difference[] {
  const [before, after] = [components(from), components(to)];
  const names = [...new Set([...before.keys(), ...after.keys()])].sort();
  const found = names
    .map((component) => ({ component, from: before.get(component) ?? '', to: after.get(component) ?? '' }))
    .filter((one) => one.from !== one.to);
  return found.length > 0 ? found : [{ component: 'signature_version', from: '', to: `${SIGNATURE_VERSION}` }];
}

/** The candidate that differs in the fewest components, the first of equals; undefined when there is none. */
export function nearest<C extends { plan: SignedPlan }>(
  candidates: readonly C[],
  to: SignedPlan,
): { candidate: C; differences: Difference[] } | undefined {
  let best: { candidate: C; differences: Difference[] } | undefined;
  for (const candidate of candidates) {
    const its = differences(candidate.plan, to);
    if (best === undefined || its.length < best.differences.length) best = { candidate, differences: its };
  }
  return best;
}
