import { timestampDate } from '@bufbuild/protobuf/wkt';
import { CacheMiss, type CacheLookUp, type PreviewJobResponse } from '@mad/proto/catalog';
import { CacheEntryState, type CacheEntry, type ExplainCacheLookUpResponse } from '@mad/proto/results';
import { CommandFailure, EXIT } from './failure.ts';
import { table } from './output.ts';

const SECONDS = { s: 1, m: 60, h: 3_600, d: 86_400 };

/** "45s", "90m", "12h", "30d" in seconds; empty is 0, which takes any age. Fails as wrong usage, naming the option. */
export function ageOf(text: string): number {
  if (text === '') return 0;
  const [, count, unit] = /^([1-9]\d{0,6})([smhd])$/.exec(text) ?? [];
  if (count === undefined) throw new CommandFailure(`--max-age ${text}: write 45s, 90m, 12h or 30d`, EXIT.usage);
  const seconds = Number(count) * SECONDS[unit as keyof typeof SECONDS];
  if (seconds >= 2 ** 31) throw new CommandFailure(`--max-age ${text}: is more than 68 years`, EXIT.usage);
  return seconds;
}

/** "never computed", "too old" …; "hit" for none. */
export const missName = (miss: CacheMiss): string =>
  miss === CacheMiss.UNSPECIFIED ? 'hit' : CacheMiss[miss].toLowerCase().replaceAll('_', ' ');

/** "valid", "pinned", "invalid". */
export const entryStateName = (state: CacheEntryState): string => CacheEntryState[state].toLowerCase();

/** Entries for people. */
export function entryTable(entries: readonly CacheEntry[]): string {
  const rows = entries.map(({ task, state, smiles, source, hits }) => [
    task,
    source!.inputSignature,
    entryStateName(state),
    Number(hits),
    source!.confidenceScore?.toFixed(2) ?? '',
    timestampDate(source!.createTime!).toISOString(),
    source!.expireTime ? timestampDate(source!.expireTime).toISOString().slice(0, 10) : '',
    smiles,
  ]);
  return table(['task', 'signature', 'state', 'hits', 'confidence', 'computed', 'expires', 'SMILES'], rows);
}

/** What a look-up found, and for a miss the nearest result and in what it differs. */
export function lookUpLines({ task, smiles, miss, source, nearest, differences }: CacheLookUp): string[] {
  const lines = [`${smiles} in ${task}: ${missName(miss)}`];
  if (source) lines.push(`  kept: job ${source.jobId}, item ${source.itemNo}, ${source.engine}`);
  if (nearest) {
    lines.push(`  nearest: job ${nearest.jobId}, item ${nearest.itemNo}, ${nearest.engine}; it differs in`);
    lines.push(
      ...differences.map(({ component, from, to }) => `    ${component}: ${from || '(none)'} → ${to || '(none)'}`),
    );
  } else if (miss === CacheMiss.NEVER_COMPUTED) {
    lines.push('  no result of this molecule is kept in this task');
  }
  return lines;
}

/** Why an item was answered or not, and what the look-up says now. */
export function explanationText({ cached, miss, lookedUp, now }: ExplainCacheLookUpResponse): string {
  const because = miss === CacheMiss.UNSPECIFIED ? 'computed; why nothing answered it was not noted' : missName(miss);
  const then = cached ? 'answered from an earlier result' : because;
  return [
    lookedUp || cached ? `then: ${then}` : 'then: computed, the job looked for no earlier results',
    ...lookUpLines(now!).map((line, index) => (index === 0 ? `now:  ${line}` : line)),
  ].join('\n');
}

/** How a job would fare, task by task, and the misses that were explained. */
export function previewText({ molecules, tasks, explained }: PreviewJobResponse): string {
  const rows = tasks.map(({ taskId, task, hits, misses }) => [
    taskId,
    task,
    Number(hits),
    Number(molecules - hits),
    misses.map(({ miss, items }) => `${items} ${missName(miss)}`).join(', '),
  ]);
  return [table(['task', 'definition', 'hits', 'misses', 'because'], rows), ...explained.flatMap(lookUpLines)].join(
    '\n',
  );
}
