import { expect, test } from '@jest/globals';
import { applicationName } from '../src/index.ts';

const ORG = '01a1fde0-17b0-731f-a157-6c2405e6b993';
const trace = { traceId: '4bf92f3577b34da6a3ce929d0e0e4736', spanId: '00f067aa0ba902b7', sampled: true };

test.each([
  [undefined, undefined, 'mad-catalog'],
  [ORG, undefined, 'mad-catalog/01a1fde017b0731fa1576c2405e6b993/'],
  [undefined, trace, 'mad-catalog//4bf92f3577b3'],
  [ORG, trace, 'mad-catalog/01a1fde017b0731fa1576c2405e6b993/4bf92f3577b3'],
])('a session of organization %s names program, organization and trace', (orgId, of, name) => {
  expect(applicationName('mad-catalog', orgId, of)).toBe(name);
});

test('no name is longer than Postgres keeps', () => {
  expect(applicationName('a-node-with-a-very-long-name-of-its-own', ORG, trace)).toHaveLength(63);
});

test('nothing in a name can end a string of SQL', () => {
  const name = applicationName("results'; DROP é", ORG, trace);
  expect(name).toMatch(/^[\w.-]+\/[0-9a-f]{32}\/[0-9a-f]{12}$/);
});
