import { describe, expect, test } from '@jest/globals';
import { afterLoss, afterReturn, MAX_LOSSES } from '../src/domain/job-lease.ts';
import {
  counterFault,
  isEnded,
  isNews,
  JOB_STATES,
  mayQueue,
  type JobProgress,
  type JobState,
  type KnownJob,
} from '../src/domain/job-progress.ts';
import { freePlaces, plannedTasks } from '../src/domain/job-quota.ts';

const none = { requested: 0n, cached: 0n, scored: 0n, failed: 0n, skipped: 0n, cancelled: 0n, pending: 0n };
const told = (state: JobState, eventSeq: bigint): JobProgress => ({
  state,
  counters: none,
  eventSeq,
  detail: '',
  coreMs: 0n,
  savedCoreMs: 0n,
});
const known = (state: JobState, eventSeq: bigint): KnownJob => ({ state, eventSeq, cancelRequested: false });

/** What a job is known to be after it was told these, in this order. */
function after(tellings: readonly JobProgress[]): KnownJob {
  let job = known('pending', 0n);
  for (const telling of tellings) {
    if (isNews(job, telling)) job = { ...job, state: telling.state, eventSeq: telling.eventSeq };
  }
  return job;
}

function* orders<T>(items: readonly T[]): Generator<T[]> {
  if (items.length === 0) yield [];
  for (const [index, first] of items.entries()) {
    for (const rest of orders(items.filter((_, other) => other !== index))) yield [first, ...rest];
  }
}

describe('progress', () => {
  test('is the same in whatever order it is told, however often, as long as the end is told', () => {
    const story = [told('queued', 1n), told('running', 2n), told('running', 3n), told('completed', 7n)];
    let count = 0;
    for (const order of orders([...story, story[1]!])) {
      count += 1;
      expect(after(order)).toEqual(known('completed', 7n));
    }
    expect(count).toBe(120);
  });

  test('an end is final, even against a higher number', () => {
    for (const state of JOB_STATES.filter(isEnded)) expect(isNews(known(state, 5n), told('running', 9n))).toBe(false);
  });

  test('an equal number is no news', () => {
    expect(isNews(known('running', 5n), told('completed', 5n))).toBe(false);
    expect(isNews(known('running', 5n), told('completed', 6n))).toBe(true);
  });

  test('tasks are queued neither after the end nor after the wish for it', () => {
    const may = JOB_STATES.filter((state) => mayQueue({ state, cancelRequested: false }));
    expect(may).toEqual(['pending', 'queued', 'running']);
    expect(JOB_STATES.some((state) => mayQueue({ state, cancelRequested: true }))).toBe(false);
  });
});

describe('counters', () => {
  test.each([
    [
      { ...none, requested: 6n, cached: 1n, scored: 1n, failed: 1n, skipped: 1n, cancelled: 1n, pending: 1n },
      undefined,
    ],
    [none, undefined],
    [{ ...none, requested: 2n, scored: 1n }, 'requested is 2, the others add up to 1'],
    [{ ...none, requested: 0n, scored: 1n, pending: -1n }, 'pending is negative'],
  ])('%p', (counters, fault) => expect(counterFault(counters)).toBe(fault));
});

describe('leases', () => {
  test('the third loss is one too many', () => {
    expect(MAX_LOSSES).toBe(3);
    expect([1, 2, 3, 4].map((losses) => afterLoss(losses, true))).toEqual(['ready', 'ready', 'failing', 'failing']);
    expect(afterLoss(1, false)).toBeUndefined();
  });

  test('what is given back waits as long as was asked', () => {
    expect([afterReturn(0, true), afterReturn(1, true), afterReturn(0, false)]).toEqual([
      'ready',
      'delayed',
      undefined,
    ]);
  });
});

describe('quotas', () => {
  test('every task is cut into chunks of its own size', () => {
    expect(plannedTasks([{ chunkSize: 100 }, { chunkSize: 1 }], 101)).toBe(2 + 101);
    expect(plannedTasks([{ chunkSize: 100 }], 1)).toBe(1);
  });

  test('a quota that was lowered leaves no place, not a negative one', () => {
    expect([freePlaces(2, 1), freePlaces(2, 2), freePlaces(2, 5)]).toEqual([1, 0, 0]);
  });
});
