import { create } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { expect, test } from '@jest/globals';
import { CacheLookUpSchema, CacheMiss, PreviewJobResponseSchema } from '@mad/proto/catalog';
import { CacheEntrySchema, CacheEntryState, ExplainCacheLookUpResponseSchema } from '@mad/proto/results';
import { ageOf, entryTable, explanationText, lookUpLines, previewText } from '../src/cache-text.ts';

const source = {
  inputSignature: 'a'.repeat(64),
  jobId: 'job-1',
  itemNo: 7,
  engine: 'vina@1.2.3',
  createTime: timestampFromDate(new Date('2026-11-25T10:00:00Z')),
};
const missed = create(CacheLookUpSchema, {
  task: 'vina.dock',
  smiles: 'CCO',
  miss: CacheMiss.NEVER_COMPUTED,
  nearest: source,
  differences: [
    { component: 'parameters.exhaustiveness', from: '8', to: '16' },
    { component: 'parameters.num_modes', from: '', to: '9' },
  ],
});

test.each([
  ['', 0],
  ['45s', 45],
  ['90m', 5_400],
  ['12h', 43_200],
  ['30d', 2_592_000],
])('an age of %p is %i seconds', (text, seconds) => expect(ageOf(text)).toBe(seconds));

test.each(['0d', '7', 'd', '1.5d', '-1d', '1w', '9999999d'])('%p is no age', (text) =>
  expect(() => ageOf(text)).toThrow(`--max-age ${text}: `),
);

test('a miss names the nearest result, and each thing it differs in', () => {
  expect(lookUpLines(missed)).toEqual([
    'CCO in vina.dock: never computed',
    '  nearest: job job-1, item 7, vina@1.2.3; it differs in',
    '    parameters.exhaustiveness: 8 → 16',
    '    parameters.num_modes: (none) → 9',
  ]);
  const alone = create(CacheLookUpSchema, { task: 'vina.dock', smiles: 'C', miss: CacheMiss.NEVER_COMPUTED });
  expect(lookUpLines(alone)[1]).toBe('  no result of this molecule is kept in this task');
});

test('an item says how it was answered then, and what the look-up says now', () => {
  const now = create(CacheLookUpSchema, { task: 'vina.dock', smiles: 'CCO', source });
  const told = (what: object) =>
    explanationText(create(ExplainCacheLookUpResponseSchema, { lookedUp: true, now, ...what })).split('\n')[0];
  expect(told({ cached: true })).toBe('then: answered from an earlier result');
  expect(told({ miss: CacheMiss.TOO_OLD })).toBe('then: too old');
  expect(told({})).toBe('then: computed; why nothing answered it was not noted');
  expect(told({ lookedUp: false })).toBe('then: computed, the job looked for no earlier results');
  expect(explanationText(create(ExplainCacheLookUpResponseSchema, { now }))).toContain(
    'now:  CCO in vina.dock: hit\n  kept: job job-1, item 7, vina@1.2.3',
  );
});

test('a preview counts task by task, with the reasons, and explains what was asked', () => {
  const text = previewText(
    create(PreviewJobResponseSchema, {
      molecules: 10n,
      tasks: [
        {
          taskId: 'dock',
          task: 'vina.dock',
          hits: 7n,
          misses: [
            { miss: CacheMiss.NEVER_COMPUTED, items: 2n },
            { miss: CacheMiss.EXPIRED, items: 1n },
          ],
        },
      ],
      explained: [missed],
    }),
  );
  expect(text).toContain('dock  vina.dock      7       3  2 never computed, 1 expired');
  expect(text).toContain('CCO in vina.dock: never computed');
});

test('entries are a table with the whole signature: pin takes it', () => {
  const entry = create(CacheEntrySchema, {
    task: 'vina.dock',
    smiles: 'C',
    state: CacheEntryState.PINNED,
    source,
    hits: 3n,
  });
  expect(entryTable([entry])).toContain(`${'a'.repeat(64)}  pinned     3`);
});
