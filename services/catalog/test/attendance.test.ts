import { expect, test } from '@jest/globals';
import { Attendance } from '../src/domain/attendance.ts';

const LEASE_MS = 60_000;
const REAP_MS = 5_000;

/** Notes every few seconds. */
function attend(attendance: Attendance, from: number, to: number): void {
  for (let now = from; now <= to; now += REAP_MS) attendance.note(now);
}

test('begins with a whole lease in which nothing is lost', () => {
  const attendance = new Attendance({ leaseMs: LEASE_MS, reapMs: REAP_MS });
  expect(attendance.isFull(0)).toBe(false);
  attend(attendance, 1_000_000, 1_050_000);
  expect(attendance.isFull(1_055_000)).toBe(false);
  attend(attendance, 1_055_000, 1_060_000);
  expect(attendance.isFull(1_060_000)).toBe(true);
});

test('begins anew after a silence that heartbeats may have fallen into', () => {
  const attendance = new Attendance({ leaseMs: LEASE_MS, reapMs: REAP_MS });
  attend(attendance, 0, 100_000);
  // A short one ends no lease.
  expect(attendance.isFull(130_000)).toBe(true);
  expect(attendance.isFull(130_001)).toBe(false);
  attend(attendance, 130_001, 185_001);
  expect(attendance.isFull(190_000)).toBe(false);
  attend(attendance, 190_001, 190_001);
  expect(attendance.isFull(190_001)).toBe(true);
});

test('is full between rare looks as well', () => {
  const attendance = new Attendance({ leaseMs: LEASE_MS, reapMs: LEASE_MS });
  for (const now of [0, LEASE_MS, 2 * LEASE_MS]) attendance.note(now);
  expect(attendance.isFull(3 * LEASE_MS)).toBe(true);
});
