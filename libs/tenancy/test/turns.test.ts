import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { BudgetExhausted } from '../src/budget-errors.ts';
import { Turns, type Turn } from '../src/turns.ts';

const SOON = { timeoutMs: 5_000 };

/** A turn that is there at once; undefined where it must be waited for. */
function atOnce(turns: Turns, orgId: string): Turn | undefined {
  const aborting = new AbortController();
  const turn = turns.take(orgId, { ...SOON, signal: aborting.signal });
  if (!(turn instanceof Promise)) return turn;
  turn.catch(() => undefined);
  aborting.abort();
  return undefined;
}

test('who is alone is not bound', () => {
  const turns = new Turns(2);
  for (let no = 0; no < 50; no += 1) expect(atOnce(turns, 'a')).toBeDefined();
});

test('several have equal shares, and each always has one', () => {
  const turns = new Turns(4);
  const a = [atOnce(turns, 'a'), atOnce(turns, 'a')];
  expect([atOnce(turns, 'b'), atOnce(turns, 'b'), atOnce(turns, 'b')].map(Boolean)).toEqual([true, true, false]);
  expect([...a, atOnce(turns, 'a')].map(Boolean)).toEqual([true, true, false]);
  // Ten of them: more than there are turns.
  for (const orgId of 'cdefghij')
    expect([atOnce(turns, orgId), atOnce(turns, orgId)].map(Boolean)).toEqual([true, false]);
});

test('who waits comes next when one of its own ends, in the order of asking', async () => {
  const turns = new Turns(2);
  const first = atOnce(turns, 'a')!;
  const other = atOnce(turns, 'b')!;
  const order: number[] = [];
  const waiting = [1, 2].map(async (no) => {
    const turn = await turns.take('a', SOON);
    order.push(no);
    turn.end();
  });
  other.end();
  await delay(5);
  expect([order, turns.waiting]).toEqual([[], 2]);
  first.end();
  // Given back once only.
  first.end();
  await Promise.all(waiting);
  expect([order, turns.waiting]).toEqual([[1, 2], 0]);
  atOnce(turns, 'b');
  expect([atOnce(turns, 'a'), atOnce(turns, 'a')].map(Boolean)).toEqual([true, false]);
});

test('a call that takes long goes on and is waited for by nobody', async () => {
  const turns = new Turns(2);
  const long = atOnce(turns, 'a')!;
  atOnce(turns, 'b');
  const next = await turns.take('a', SOON);
  // Too late to count: the share is not overdrawn.
  long.end();
  expect(atOnce(turns, 'a')).toBeUndefined();
  next.end();
  expect(atOnce(turns, 'a')).toBeDefined();
});

test('waiting ends at the deadline, and when its caller goes', async () => {
  const turns = new Turns(2);
  atOnce(turns, 'b');
  atOnce(turns, 'a');
  await expect(turns.take('a', { timeoutMs: 5 })).rejects.toBeInstanceOf(BudgetExhausted);
  const aborting = new AbortController();
  const gone = turns.take('a', { ...SOON, signal: aborting.signal });
  aborting.abort(new Error('gone'));
  await expect(gone).rejects.toThrow('gone');
  expect(turns.waiting).toBe(0);
});

test('whoever asks, in any order: nobody has more than the share, nobody is forgotten', async () => {
  const act = fc.record({ orgId: fc.constantFrom('a', 'b', 'c', 'd'), end: fc.boolean() });
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 9 }), fc.array(act, { maxLength: 60 }), async (limit, acts) => {
      const turns = new Turns(limit);
      const held = new Map<string, Turn[]>(['a', 'b', 'c', 'd'].map((orgId) => [orgId, []]));
      const asked: Promise<void>[] = [];
      // All are there, so that each has its share from the beginning.
      for (const [orgId, mine] of held) mine.push(atOnce(turns, orgId)!);
      for (const mine of held.values()) mine.pop()!.end();
      const share = Math.max(1, Math.floor(limit / held.size));
      for (const { orgId, end } of acts) {
        const mine = held.get(orgId)!;
        if (end) mine.shift()?.end();
        else asked.push(Promise.resolve(turns.take(orgId, SOON)).then((turn) => void mine.push(turn)));
        await Promise.resolve();
        await Promise.resolve();
        for (const each of held.values()) expect(each.length).toBeLessThanOrEqual(share);
      }
      for (let wait = 0; turns.waiting > 0 && wait < 1_000; wait += 1) {
        for (const mine of held.values()) for (const turn of mine.splice(0)) turn.end();
        await Promise.resolve();
      }
      await Promise.all(asked);
      expect(turns.waiting).toBe(0);
    }),
    { numRuns: 200 },
  );
});
