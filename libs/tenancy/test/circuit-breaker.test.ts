import { beforeEach, describe, expect, test } from '@jest/globals';
import { CircuitBreaker } from '../src/circuit-breaker.ts';

const BASE_MS = 100;
let now: number;
let breaker: CircuitBreaker;

beforeEach(() => {
  now = 0;
  breaker = new CircuitBreaker({ threshold: 3, baseMs: BASE_MS, maxMs: 8 * BASE_MS, now: () => now });
});

function fail(times: number): void {
  for (let n = 0; n < times; n += 1) breaker.begin().failed();
}

/** Opens it and lets its time pass. */
function untilHalfOpen(): void {
  fail(3);
  now += breaker.retryAfterMs();
}

describe('a breaker', () => {
  test('opens after so many failures in a row, and not before', () => {
    fail(2);
    breaker.begin().succeeded();
    fail(2);
    expect(breaker.state).toBe('closed');
    fail(1);
    expect([breaker.state, breaker.allows()]).toEqual(['open', false]);
    expect(breaker.retryAfterMs()).toBeGreaterThanOrEqual(BASE_MS / 2);
    expect(breaker.retryAfterMs()).toBeLessThanOrEqual(BASE_MS);
  });

  test('lets one try when its time has passed, and closes when that succeeds', () => {
    untilHalfOpen();
    expect([breaker.state, breaker.allows()]).toEqual(['half_open', true]);
    const attempt = breaker.begin();
    expect(breaker.allows()).toBe(false);
    attempt.succeeded();
    expect([breaker.state, breaker.allows()]).toEqual(['closed', true]);
    fail(2);
    expect(breaker.state).toBe('closed');
  });

  test('stays open twice as long after each try that fails, up to a bound', () => {
    untilHalfOpen();
    for (const longest of [2, 4, 8, 8, 8]) {
      breaker.begin().failed();
      expect(breaker.state).toBe('open');
      expect(breaker.retryAfterMs()).toBeGreaterThanOrEqual((longest * BASE_MS) / 2);
      expect(breaker.retryAfterMs()).toBeLessThanOrEqual(longest * BASE_MS);
      now += breaker.retryAfterMs();
    }
  });

  test('gives the try to another when it came to nothing', () => {
    untilHalfOpen();
    breaker.begin().dropped();
    expect(breaker.allows()).toBe(true);
  });

  test('is not held open by the late news of those that began before', () => {
    const late = [breaker.begin(), breaker.begin()];
    untilHalfOpen();
    late[0]!.failed();
    expect(breaker.allows()).toBe(true);
    const attempt = breaker.begin();
    late[1]!.failed();
    expect(breaker.state).toBe('half_open');
    attempt.succeeded();
    expect(breaker.state).toBe('closed');
  });
});
