import { expect, test } from '@jest/globals';
import { applicationName } from '../src/application-name.ts';

const ORG = '01a1fde0-17b0-731f-a157-6c2405e6b993';
const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';

test('a connection is named for service, organization and, where there is one, the trace', () => {
  expect(applicationName('mad-results', ORG)).toBe('mad-results 01a1fde017b0731fa1576c2405e6b993');
  expect(applicationName('mad-results', ORG, TRACE)).toBe(
    'mad-results 01a1fde017b0731fa1576c2405e6b993 4bf92f3577b34da6',
  );
});

test('the longest name fits what Postgres keeps, and nothing in it can end a string', () => {
  const name = applicationName("results'; DROP é-7f9c", ORG, TRACE);
  expect(Buffer.byteLength(name)).toBeLessThanOrEqual(63);
  expect(name).toMatch(/^[\w.-]+ [0-9a-f]{32} [0-9a-f]{16}$/);
});
