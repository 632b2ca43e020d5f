import { expect, test } from '@jest/globals';
import type { SignedPlan } from '../src/domain/input-signature.ts';
import { differences, nearest } from '../src/domain/signature-difference.ts';

const plan: SignedPlan = {
  engine: 'vina@1.2.3',
  recipe: 'openchemlib-9.25',
  rdkitVersion: '2026.09.1',
  cacheVersion: 1,
  parameters: { seed: 42, exhaustiveness: 8, box: { x: 1, y: 2 }, cpu: 4, receptor: 'artifact-1' },
  artifacts: { receptor: 'a'.repeat(64) },
};

test('each component that differs is named, with what it was and what it is', () => {
  const other: SignedPlan = {
    ...plan,
    engine: 'vina@1.2.5',
    recipe: 'other',
    rdkitVersion: '2027.03.1',
    cacheVersion: 2,
    artifacts: { receptor: 'b'.repeat(64) },
    parameters: { ...plan.parameters, exhaustiveness: 16, box: { x: 1, y: 2.5 }, num_modes: 9, cpu: 8 },
  };
  expect(differences(plan, other)).toEqual([
    { component: 'artifacts.receptor', from: `"${'a'.repeat(64)}"`, to: `"${'b'.repeat(64)}"` },
    { component: 'cache_version', from: '1', to: '2' },
    { component: 'engine', from: '"vina@1.2.3"', to: '"vina@1.2.5"' },
    { component: 'parameters.box.y', from: '2', to: '2.5' },
    { component: 'parameters.exhaustiveness', from: '8', to: '16' },
    { component: 'parameters.num_modes', from: '', to: '9' },
    { component: 'rdkit_version', from: '"2026.09.1"', to: '"2027.03.1"' },
    { component: 'recipe', from: '"openchemlib-9.25"', to: '"other"' },
  ]);
});

test('what is not hashed is no difference: only the text that is hashed can have changed', () => {
  const other = { ...plan, parameters: { ...plan.parameters, cpu: 1, receptor: 'artifact-2', seed: 42.0 } };
  expect(differences(plan, other)).toEqual([{ component: 'signature_version', from: '', to: '1' }]);
});

test('the nearest is the one that differs in fewest components, the first of equals', () => {
  const near = { name: 'near', plan: { ...plan, engine: 'vina@1.2.2' } };
  const far = { name: 'far', plan: { ...plan, engine: 'vina@1.2.2', recipe: 'x' } };
  const equal = { name: 'equal', plan: { ...plan, recipe: 'y' } };
  expect(nearest([far, near, equal], plan)).toMatchObject({
    candidate: { name: 'near' },
    differences: [{ component: 'engine' }],
  });
  expect(nearest([], plan)).toBeUndefined();
});
