import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { createLogger } from '@mad/process';
import type { TestDatabase } from '@mad/testing';
import { openBoss, type Boss, type BossJob, type Database } from '../src/index.ts';
import { ACME, notesDatabase, openNotes } from './notes.ts';

const logger = createLogger('boss-test', { level: 'silent' });
const QUEUES = {
  dead: {},
  work: { retryLimit: 1, retryDelayMs: 1000, deadLetter: 'dead' },
  plain: { retryLimit: 3 },
};

let database: TestDatabase;
let db: Database;
let boss: Boss;

beforeAll(async () => {
  database = await notesDatabase();
  db = await openNotes(database);
});

beforeEach(async () => {
  boss = await open();
});

afterEach(async () => {
  await boss?.close();
});

afterAll(async () => {
  await db?.close();
  await database?.drop();
});

async function open(): Promise<Boss> {
  return openBoss({ url: database.url('mad_catalog'), schema: 'catalog_boss', logger, queues: QUEUES });
}

/** Resolves with the deliveries once `count` of them have come. */
function receive(queue: string, count: number, handle?: (job: BossJob<{ n: number }>) => Promise<void>) {
  const jobs: BossJob<{ n: number }>[] = [];
  return new Promise<BossJob<{ n: number }>[]>((settle, fail) => {
    boss
      .work<{ n: number }>(
        queue,
        async (job) => {
          jobs.push(job);
          if (jobs.length === count) settle(jobs);
          await handle?.(job);
        },
        { pollMs: 500 },
      )
      .catch(fail);
  });
}

test('a message exists if and only if its transaction commits', async () => {
  await expect(
    db.inOrg(ACME, async (tx) => {
      await boss.send(tx, 'plain', { n: 1 });
      throw new Error('undo');
    }),
  ).rejects.toThrow('undo');
  await db.inOrg(ACME, (tx) => boss.send(tx, 'plain', { n: 2 }));
  await db.asSystem((tx) => boss.send(tx, 'plain', { n: 3 }));
  expect(await boss.depth('plain')).toMatchObject({ waiting: 2 });
  const jobs = await receive('plain', 2);
  expect(jobs.map(({ data }) => data.n).sort((a, b) => a - b)).toEqual([2, 3]);
  expect(jobs[0]).toMatchObject({ attempt: 1, last: false });
});

test('a key keeps a second message out while the first one waits; messages without keys are all kept', async () => {
  const ids = await db.inOrg(ACME, async (tx) => [
    await boss.send(tx, 'plain', { n: 1 }, { key: 'same' }),
    await boss.send(tx, 'plain', { n: 2 }, { key: 'same' }),
    await boss.send(tx, 'plain', { n: 3 }, { key: 'other' }),
    await boss.send(tx, 'plain', { n: 4 }),
    await boss.send(tx, 'plain', { n: 5 }),
  ]);
  expect(ids.map((id) => id !== undefined)).toEqual([true, false, true, true, true]);
  const jobs = await receive('plain', 4);
  expect(jobs.map(({ data }) => data.n).sort((a, b) => a - b)).toEqual([1, 3, 4, 5]);
});

test('what a handler throws is retried, then goes to the dead letters', async () => {
  await db.inOrg(ACME, async (tx) => {
    await boss.send(tx, 'work', { n: 1 });
    await boss.send(tx, 'work', { n: 2 });
  });
  const seen: [number, boolean][] = [];
  const tried = receive('work', 4, (job) => {
    seen.push([job.attempt, job.last]);
    return Promise.reject(new Error('no'));
  });
  const dead = await receive('dead', 2);
  await tried;
  expect(dead.map(({ data }) => data.n).sort((a, b) => a - b)).toEqual([1, 2]);
  expect(seen.sort(([a], [b]) => a - b)).toEqual([
    [1, false],
    [1, false],
    [2, true],
    [2, true],
  ]);
}, 20_000);

test('a message for later waits', async () => {
  await db.inOrg(ACME, (tx) => boss.send(tx, 'plain', { n: 9 }, { delayMs: 1500 }));
  const began = Date.now();
  await receive('plain', 1);
  expect(Date.now() - began).toBeGreaterThan(1000);
});

test('closing waits for the handler at work', async () => {
  await db.inOrg(ACME, (tx) => boss.send(tx, 'plain', { n: 1 }));
  let finished = false;
  await receive('plain', 1, async () => {
    await new Promise((settle) => setTimeout(settle, 300));
    finished = true;
  });
  await boss.close();
  expect(finished).toBe(true);
  boss = await open();
  expect(await boss.depth('plain')).toMatchObject({ waiting: 0 });
});

test('a schema that no migration made is refused, and the login makes none', async () => {
  const nowhere = openBoss({ url: database.url('mad_catalog'), schema: 'nowhere_boss', logger, queues: {} });
  await expect(nowhere).rejects.toThrow();
  expect(await db.asSystem((tx) => tx.query(`SELECT 1 FROM pg_namespace WHERE nspname = 'nowhere_boss'`))).toEqual([]);
});
