import { expect, test } from '@jest/globals';
import { requireName, requireStorable, violationsOf } from '../src/index.ts';

/** What is refused: "field: description", or nothing. */
function refusal(check: () => void): string {
  try {
    check();
    return '';
  } catch (error) {
    return violationsOf(error)
      .map(({ field, description }) => `${field}: ${description}`)
      .join();
  }
}

test('names have no control characters and are not blank', () => {
  expect(refusal(() => requireName('name', 'tab\there'))).toBe('name: must not contain control characters');
  expect(refusal(() => requireName('name', 'plain “text” 🧪'))).toBe('');
  expect(refusal(() => requireName('name', ' \u00a0 '))).toBe('name: must not be blank');
  expect(refusal(() => requireName('name', ''))).toBe('name: must not be blank');
  expect(refusal(() => requireName('name', '', { mayBeEmpty: true }))).toBe('');
  expect(refusal(() => requireName('name', ' ', { mayBeEmpty: true }))).toBe('name: must not be blank');
});

test('NUL is found wherever it is in a value', () => {
  const problem = 'config: must not contain the character NUL';
  expect(refusal(() => requireStorable('config', { a: [{ b: 'x\u0000' }] }))).toBe(problem);
  expect(refusal(() => requireStorable('config', { 'k\u0000': 1 }))).toBe(problem);
  expect(refusal(() => requireStorable('config', { a: [1, null, 'x'] }))).toBe('');
});
