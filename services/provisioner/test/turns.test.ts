import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, test } from '@jest/globals';
import type { OperationKind } from '../src/domain/plan.ts';
import { Turns } from '../src/operations/turns.ts';

let isOver = false;
let line: Promise<void>[] = [];

/** Nobody waits longer than the test. */
afterEach(async () => {
  isOver = true;
  await Promise.all(line);
  [isOver, line] = [false, []];
});

/** Gets in line in this order; answers whose turn it has been so far. */
function ask(turns: Turns, kinds: readonly OperationKind[]): OperationKind[] {
  const got: OperationKind[] = [];
  const isGivenUp = () => Promise.resolve(isOver);
  for (const kind of kinds) line.push(turns.take(kind, isGivenUp).then(() => void got.push(kind)));
  return got;
}

describe('where databases are migrated as many at once as there may be', () => {
  const migrations = Array.from({ length: 8 }, () => 'migrate' as const);

  test('a new organization and two suspensions need not wait', async () => {
    const turns = new Turns();
    const migrated = ask(turns, migrations);
    const others = ask(turns, ['backup', 'provision', 'rotate', 'suspend', 'freeze', 'resume']);
    await delay(10);
    expect(migrated).toHaveLength(4);
    expect(others).toEqual(['provision', 'suspend', 'freeze']);
  });

  test('the end of one lets in whose turn it is then, in their order', async () => {
    const turns = new Turns();
    ask(turns, [...migrations.slice(0, 4), 'provision']);
    const got = ask(turns, ['backup', 'rotate', 'migrate', 'resume']);
    await delay(10);
    expect(got).toEqual(['resume']);
    turns.leave('resume');
    turns.leave('provision');
    await delay(10);
    expect(got).toEqual(['resume', 'rotate']);
    turns.leave('migrate');
    await delay(10);
    expect(got).toEqual(['resume', 'rotate', 'backup']);
  });
});

test('of those that may take hours there are two', async () => {
  const got = ask(new Turns(), ['backup', 'restore', 'move', 'migrate', 'drop_index', 'migrate']);
  await delay(10);
  expect(got).toEqual(['backup', 'restore', 'migrate', 'migrate']);
});

test('whoever nobody wants any more is let out of the line; whoever cannot be asked waits on', async () => {
  const turns = new Turns();
  ask(turns, ['migrate', 'migrate', 'migrate', 'migrate']);
  let isIn = false;
  const unasked = turns.take('migrate', () => Promise.reject(new Error('away'))).then(() => (isIn = true));
  await turns.take('migrate', () => Promise.resolve(true));
  expect(isIn).toBe(false);
  turns.leave('migrate');
  turns.leave('migrate');
  await unasked;
});
