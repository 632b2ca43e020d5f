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

test('several share what there is, and who has nothing running never waits', () => {
  const turns = new Turns(4);
  const a = [atOnce(turns, 'a'), atOnce(turns, 'a')];
  expect([atOnce(turns, 'b'), atOnce(turns, 'b'), atOnce(turns, 'b')].map(Boolean)).toEqual([true, true, false]);
  expect([...a, atOnce(turns, 'a')].map(Boolean)).toEqual([true, true, false]);
  // Ten of them: more than there are turns.
  for (const orgId of 'cdefghij')
    expect([atOnce(turns, orgId), atOnce(turns, orgId)].map(Boolean)).toEqual([true, false]);
});

/** Asks again and again, so that it always has calls that wait; `granted` is called with each turn. */
function greedy(turns: Turns, orgId: string, clients: number, granted: (orgId: string) => Promise<unknown>) {
  let stopped = false;
  const client = async (): Promise<void> => {
    while (!stopped) {
      const turn = await turns.take(orgId, SOON);
      await granted(orgId);
      turn.end();
    }
  };
  const running = Promise.all(Array.from({ length: clients }, client));
  return { stop: () => ((stopped = true), running) };
}

test('who waits comes next when there is room, in the order of asking', async () => {
  const turns = new Turns(2);
  const first = atOnce(turns, 'a')!;
  const other = atOnce(turns, 'b')!;
  const order: number[] = [];
  const waiting = [1, 2].map(async (no) => {
    const turn = await turns.take('a', SOON);
    order.push(no);
    turn.end();
  });
  expect([order, turns.waiting]).toEqual([[], 2]);
  other.end();
  // Given back once only.
  other.end();
  await Promise.all(waiting);
  expect([order, turns.waiting]).toEqual([[1, 2], 0]);
  first.end();
});

test('many clients get no more turns than few, and long calls no more time than short ones', async () => {
  const turns = new Turns(2);
  const had = new Map<string, { calls: number; ms: number }>();
  const granted = (ms: number) => async (orgId: string) => {
    const began = performance.now();
    await delay(ms);
    const { calls, ms: before } = had.get(orgId) ?? { calls: 0, ms: 0 };
    had.set(orgId, { calls: calls + 1, ms: before + performance.now() - began });
  };
  const parties = [
    greedy(turns, 'few', 3, granted(3)),
    greedy(turns, 'many', 60, granted(3)),
    greedy(turns, 'long', 10, granted(30)),
  ];
  await delay(900);
  await Promise.all(parties.map(({ stop }) => stop()));
  const [few, many, long] = ['few', 'many', 'long'].map((orgId) => had.get(orgId)!) as [
    { calls: number; ms: number },
    { calls: number; ms: number },
    { calls: number; ms: number },
  ];
  expect(many.calls / few.calls).toBeLessThan(2);
  expect(long.ms / few.ms).toBeLessThan(2);
});

test('who comes back after a while has saved up no time', async () => {
  const turns = new Turns(1);
  const calls = { early: 0, late: 0 };
  const granted = async (orgId: string) => {
    await delay(1);
    calls[orgId as keyof typeof calls] += 1;
  };
  atOnce(turns, 'late')!.end();
  const early = greedy(turns, 'early', 5, granted);
  await delay(300);
  const before = calls.early;
  const late = greedy(turns, 'late', 5, granted);
  await delay(300);
  const meanwhile = calls.early - before;
  await Promise.all([early.stop(), late.stop()]);
  expect(meanwhile).toBeGreaterThan(calls.late / 4);
});

test('a call that takes long goes on and is waited for by nobody', async () => {
  const turns = new Turns(2);
  const long = atOnce(turns, 'a')!;
  atOnce(turns, 'b');
  const next = await turns.take('a', SOON);
  // Too late to count: what runs is not overdrawn.
  long.end();
  expect(turns.waiting).toBe(0);
  const third = await turns.take('a', SOON);
  expect(atOnce(turns, 'a')).toBeUndefined();
  next.end();
  expect(atOnce(turns, 'a')).toBeDefined();
  third.end();
});

test('who waits for a connection lets another run, one of an organization at a time, and goes on without waiting', async () => {
  const turns = new Turns(1);
  const one = atOnce(turns, 'a')!;
  const other = atOnce(turns, 'b')!;
  expect(atOnce(turns, 'b')).toBeUndefined();
  other.end();
  const connected = Promise.withResolvers<string>();
  const first = one.aside(() => connected.promise);
  const second = atOnce(turns, 'a')!;
  const third = second.aside(() => connected.promise);
  // The second keeps its turn.
  const waiting = turns.take('a', SOON);
  expect(waiting).toBeInstanceOf(Promise);
  connected.resolve('here');
  expect(await Promise.all([first, third])).toEqual(['here', 'here']);
  second.end();
  await delay(1);
  expect(turns.waiting).toBe(1);
  one.end();
  (await waiting).end();
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

test('whoever asks, in any order: no more run than may but for one each, nobody is forgotten', async () => {
  const act = fc.record({
    orgId: fc.constantFrom('a', 'b', 'c', 'd'),
    what: fc.constantFrom('take', 'take', 'end', 'go'),
  });
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 9 }), fc.array(act, { maxLength: 60 }), async (limit, acts) => {
      const turns = new Turns(limit);
      const held = new Map<string, Turn[]>(['a', 'b', 'c', 'd'].map((orgId) => [orgId, []]));
      const going: AbortController[] = [];
      const asked: Promise<void>[] = [];
      // All are there: who is alone is not bound.
      for (const [orgId, mine] of held) mine.push(atOnce(turns, orgId)!);
      for (const mine of held.values()) mine.pop()!.end();
      for (const { orgId, what } of acts) {
        const mine = held.get(orgId)!;
        if (what === 'end') mine.shift()?.end();
        else if (what === 'go') going.pop()?.abort(new Error('gone'));
        else {
          const aborting = new AbortController();
          const turn = turns.take(orgId, { ...SOON, signal: aborting.signal });
          if (turn instanceof Promise) {
            going.push(aborting);
            asked.push(
              turn.then(
                (given) => void mine.push(given),
                () => undefined,
              ),
            );
          } else {
            mine.push(turn);
          }
        }
        await Promise.resolve();
        await Promise.resolve();
        const running = [...held.values()].map(({ length }) => length);
        const beyond = running.filter((length) => length > 0).length - 1;
        expect(running.reduce((sum, one) => sum + one, 0)).toBeLessThanOrEqual(limit + Math.max(0, beyond));
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
