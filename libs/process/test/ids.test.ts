import { afterEach, expect, jest, test } from '@jest/globals';
import { uuidTime, uuidv7 } from '../src/index.ts';

afterEach(() => {
  jest.useRealTimers();
});

const at = (time: string): string => {
  jest.useFakeTimers({ now: new Date(time), doNotFake: ['performance'] });
  return uuidv7();
};

test('ids ascend within a millisecond, and while the clock is corrected', () => {
  const ids = [
    at('2027-03-01T12:00:00.000Z'),
    uuidv7(),
    uuidv7(),
    at('2027-03-01T11:59:58.000Z'),
    at('2027-03-01T12:00:00.001Z'),
  ];
  expect(ids.toSorted()).toEqual(ids);
  expect(new Set(ids).size).toBe(ids.length);
});

test('a clock that was ahead for a moment leaves no ids of the future behind', () => {
  at('2028-01-01T00:00:00.000Z');
  expect(uuidTime(at('2027-03-01T12:00:00.000Z')).toISOString()).toBe('2027-03-01T12:00:00.000Z');
});
