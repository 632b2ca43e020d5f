import { mkdir, writeFile } from 'node:fs/promises';
import type { HostFacts } from './host.ts';
import { ratios, summarize, type Summary } from './measure.ts';
import type { Line, Target } from './row.ts';
import { textTable } from './text-table.ts';

/** A line with its verdict. */
export interface JudgedLine {
  name: string;
  unit: string;
  value: Summary;
  floor?: Summary;
  /** Median of the rounds' own ratios, which is not quite the ratio of the medians. */
  ratio?: Summary;
  /** Empty where nothing was promised. */
  target: string;
  ok: boolean;
  samples: { ours: number[]; floor?: number[] };
  notes?: Readonly<Record<string, unknown>>;
}

/** Holds a line against its target: the median must keep it. */
export function judge(line: Line): JudgedLine {
  const { name, unit, target, ours, floor, notes } = line;
  const value = summarize(ours);
  const ratio = floor && summarize(ratios({ ours, floor }));
  const judged = target?.of === 'ratio' ? ratio : value;
  if (judged === undefined) throw new Error(`${name} has a target for its ratio and no floor`);
  return {
    name,
    unit,
    value,
    ...(floor === undefined ? {} : { floor: summarize(floor), ratio }),
    target: target === undefined ? '' : targetText(target, unit),
    ok: target === undefined || keeps(target, judged.median),
    samples: { ours, ...(floor === undefined ? {} : { floor }) },
    ...(notes === undefined ? {} : { notes }),
  };
}

function keeps(target: Target, median: number): boolean {
  return 'atLeast' in target ? median >= target.atLeast : median <= target.atMost;
}

function targetText(target: Target, unit: string): string {
  const bound = 'atLeast' in target ? `≥ ${target.atLeast}` : `≤ ${target.atMost}`;
  return target.of === 'ratio' ? `${bound} ×` : `${bound} ${unit}`.trimEnd();
}

/** Three significant digits, without an exponent. */
function short(value: number): string {
  if (value >= 100) return value.toFixed(0);
  return String(Number(value.toPrecision(3)));
}

function spread({ median, min, max }: Summary): string {
  return `${short(median)} [${short(min)}..${short(max)}]`;
}

/** Lines as a table for people: medians, with least and greatest in brackets. */
export function table(lines: readonly JudgedLine[]): string {
  return textTable([
    ['name', 'value', 'floor', 'ratio', 'target', 'ok'],
    ...lines.map(({ name, unit, value, floor, ratio, target, ok }) => [
      name,
      `${spread(value)} ${unit}`.trimEnd(),
      floor ? spread(floor) : '–',
      ratio ? spread(ratio) : '–',
      target || '–',
      ok ? 'yes' : 'no',
    ]),
  ]);
}

/** Keeps a row's lines, with every sample, in `results/<row>.json`. */
export async function keepResult(row: string, host: HostFacts, lines: readonly JudgedLine[]): Promise<void> {
  const folder = new URL('results/', import.meta.url);
  await mkdir(folder, { recursive: true });
  await writeFile(new URL(`${row}.json`, folder), `${JSON.stringify({ row, host, lines }, null, 2)}\n`);
}
