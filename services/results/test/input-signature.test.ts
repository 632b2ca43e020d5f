import { createHash } from 'node:crypto';
import { expect, test } from '@jest/globals';
import type { JsonObject } from '@bufbuild/protobuf';
import { canonicalParameters, signatureText, type SignedPlan } from '../src/domain/input-signature.ts';

const RECEPTOR = 'a'.repeat(64);

const plan: SignedPlan = {
  engine: 'vina@1.2.3',
  recipe: 'openchemlib-9.25+obabel-3.1.1',
  rdkitVersion: '2026.09.1',
  cacheVersion: 1,
  parameters: { receptor: 'artifact-1', center_x: 1.5, seed: 42, exhaustiveness: 8 },
  artifacts: { receptor: RECEPTOR },
};

type Side = Partial<Omit<SignedPlan, 'parameters'>> & { parameters?: JsonObject; smiles?: string };

const signature = ({ smiles = 'CCO', ...changes }: Side): string =>
  createHash('sha256')
    .update(signatureText({ ...plan, ...changes })(smiles))
    .digest('hex');

/** Parameters besides the standard ones. */
const with_ = (parameters: JsonObject): Side => ({ parameters: { ...plan.parameters, ...parameters } });

const equal: [string, Side, Side][] = [
  ['the same twice', {}, {}],
  ['keys in another order', { parameters: { b: 1, a: 2, seed: 1 } }, { parameters: { seed: 1, a: 2, b: 1 } }],
  ['keys in another order, nested', with_({ box: { x: 1, y: 2 } }), with_({ box: { y: 2, x: 1 } })],
  ['a whole number as a float', with_({ size_x: 20 }), with_({ size_x: 20.0 })],
  ['beyond 3 decimals, below', with_({ center_x: 1.2344 }), with_({ center_x: 1.23441 })],
  ['a sum that is not exact', with_({ size_x: 0.1 + 0.2 }), with_({ size_x: 0.3 })],
  ['negative zero', with_({ center_y: -0 }), with_({ center_y: 0 })],
  ['what rounds to negative zero', with_({ center_y: -0.0001 }), with_({ center_y: 0 })],
  ['negative zero in a list', with_({ center: [-0, 1] }), with_({ center: [0, 1] })],
  ['negative zero in an object', with_({ box: { x: -0 } }), with_({ box: { x: 0 } })],
  ['a title behind the SMILES', { smiles: 'CCO ethanol' }, { smiles: 'CCO' }],
  ['a title behind a tab', { smiles: 'CCO\tethanol' }, { smiles: 'CCO' }],
  ['blanks before the SMILES', { smiles: '  CCO' }, { smiles: 'CCO' }],
  ['a line break behind the SMILES', { smiles: 'CCO\r\n' }, { smiles: 'CCO' }],
  ['cpu', with_({ cpu: 1 }), with_({ cpu: 8 })],
  ['cores', with_({ cores: 1 }), {}],
  ['priority', with_({ priority: 10 }), {}],
  ['labels', with_({ labels: { project: 'x' } }), {}],
  ['the job', with_({ job_id: 'x' }), {}],
  ['the organization', with_({ org_id: 'x' }), {}],
  ['a timeout', with_({ timeout_s: 5, timeout: 1, timeout_ms: 9 }), {}],
  ['the same receptor under another id', with_({ receptor: 'artifact-2' }), with_({ receptor: 'artifact-1' })],
];

const different: [string, Side, Side][] = [
  ['another molecule', { smiles: 'CCO' }, { smiles: 'CCN' }],
  ['another stereoisomer', { smiles: 'C[C@H](N)O' }, { smiles: 'C[C@@H](N)O' }],
  ['a salt and its base', { smiles: 'CN' }, { smiles: 'C[NH3+].[Cl-]' }],
  ['another protonation', { smiles: 'NCC(=O)O' }, { smiles: '[NH3+]CC(=O)[O-]' }],
  ['another tautomer', { smiles: 'O=c1cccc[nH]1' }, { smiles: 'Oc1ccccn1' }],
  ['upper and lower case', { smiles: 'CO' }, { smiles: 'Co' }],
  ['another engine version', {}, { engine: 'vina@1.2.5' }],
  ['another engine', {}, { engine: 'rdkit@2026.09.1' }],
  ['another recipe', {}, { recipe: 'openchemlib-9.26+obabel-3.1.1' }],
  ['another RDKit', {}, { rdkitVersion: '2026.09.2' }],
  ['another cache version', {}, { cacheVersion: 2 }],
  ['another receptor', {}, { artifacts: { receptor: 'b'.repeat(64) } }],
  ['a receptor under another parameter', {}, { artifacts: { flexible: RECEPTOR } }],
  ['another seed', {}, with_({ seed: 43 })],
  ['a negative seed', with_({ seed: 42 }), with_({ seed: -42 })],
  ['the third decimal', with_({ center_x: 1.234 }), with_({ center_x: 1.235 })],
  ['a parameter more', {}, with_({ num_modes: 9 })],
  ['null and absent', with_({ flexible: null }), {}],
  ['a number and its text', with_({ num_modes: 9 }), with_({ num_modes: '9' })],
  ['true and 1', with_({ refine: true }), with_({ refine: 1 })],
  ['a list in another order', with_({ center: [1, 2] }), with_({ center: [2, 1] })],
  ['an empty list and an empty object', with_({ flexible: [] }), with_({ flexible: {} })],
  ['a nested cpu', with_({ machine: { cpu: 1 } }), with_({ machine: { cpu: 2 } })],
];

const refused: [string, Side, string][] = [
  ['seed 0', with_({ seed: 0 }), 'seed'],
  ['seed −0', with_({ seed: -0 }), 'seed'],
  ['a seed with decimals', with_({ seed: 1.5 }), 'seed'],
  ['a seed as text', with_({ seed: '1' }), 'seed'],
  ['no seed where one is named', with_({ seed: null }), 'seed'],
  ['a seed beyond whole numbers', with_({ seed: 2 ** 60 }), 'seed'],
  ['infinity', with_({ size_x: Infinity }), 'size_x'],
  ['not a number, nested', with_({ box: { size: [1, NaN] } }), 'box.size[1]'],
  ['an empty SMILES', { smiles: '' }, 'smiles'],
  ['a blank SMILES', { smiles: ' \t' }, 'smiles'],
  ['a SMILES beyond ASCII', { smiles: 'CC\u041e' }, 'smiles'],
  ['a receptor without content', { artifacts: { receptor: '' } }, 'receptor'],
];

test.each(equal)('equal: %s', (_name, a, b) => expect(signature(a)).toBe(signature(b)));
test.each(different)('different: %s', (_name, a, b) => expect(signature(a)).not.toBe(signature(b)));
test.each(refused)('refused: %s', (_name, side, field) => {
  let thrown: unknown;
  try {
    signature(side);
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toMatchObject({ name: 'SignatureError', field });
});

test('the text is JSON with sorted keys, and holds what the engine runs', () => {
  const text = signatureText(plan)('CCO');
  const parsed = JSON.parse(text) as JsonObject;
  expect(Object.keys(parsed)).toEqual(Object.keys(parsed).sort());
  expect(JSON.stringify(parsed)).toBe(text);
  expect(parsed['parameters']).toEqual(canonicalParameters(plan.parameters, ['receptor']));
  expect(parsed['parameters']).toEqual({ center_x: 1.5, exhaustiveness: 8, seed: 42 });
});

test('canonical parameters are their own canonical form', () => {
  const once = canonicalParameters({ seed: 7, z: -0.0004, a: [0.12349, { y: 1, x: -0 }], cpu: 4 });
  expect(once).toEqual({ a: [0.123, { x: 0, y: 1 }], seed: 7, z: 0 });
  expect(canonicalParameters(once)).toEqual(once);
});
