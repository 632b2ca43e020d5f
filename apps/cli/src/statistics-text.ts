import type { GetJobCoverageResponse, GetScoreAgreementResponse, GetScoreHistogramResponse } from '@mad/proto/results';
import { table } from './output.ts';

const BAR_WIDTH = 48;
/** A bar's last cell, in eighths. */
const EIGHTHS = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/** A bar of this share of the longest one; whatever is more than nothing shows. */
export function bar(items: number, most: number, width = BAR_WIDTH): string {
  if (items <= 0 || most <= 0) return '';
  const eighths = Math.max(1, Math.round((items / most) * width * 8));
  return '█'.repeat(Math.floor(eighths / 8)) + EIGHTHS[eighths % 8]!;
}

/** Decimals that tell a bin's edges apart. */
function decimalsOf(binWidth: number): number {
  return Math.max(0, Math.ceil(-Math.log10(binWidth) - 1e-9));
}

/** A histogram drawn in text, empty bins in between too, best scores first, with its quantiles. */
export function histogramText(histogram: GetScoreHistogramResponse): string {
  const { taskId, scoreUnits, items, bins, binWidth, lowerIsBetter, quantiles, resolution } = histogram;
  const title = `${taskId}: ${items} scores, ${scoreUnits}, ${lowerIsBetter ? 'lower' : 'higher'} is better`;
  if (bins.length === 0) return `${title}\nno scores yet`;
  const decimals = decimalsOf(binWidth);
  const counts = new Map(bins.map(({ low, items: count }) => [Math.round(low / binWidth), Number(count)]));
  const [first, last] = [Math.min(...counts.keys()), Math.max(...counts.keys())];
  const most = Math.max(...counts.values());
  const places = Array.from({ length: last - first + 1 }, (_, index) => first + index);
  const edge = (place: number): string => (place * binWidth).toFixed(decimals);
  const width = Math.max(edge(first).length, edge(last + 1).length);
  const digits = String(most).length;
  const lines = (lowerIsBetter ? places : places.toReversed()).map((place) => {
    const count = counts.get(place) ?? 0;
    const range = `${edge(place).padStart(width)} … ${edge(place + 1).padStart(width)}`;
    return `${range}  ${String(count).padStart(digits)}  ${bar(count, most)}`.trimEnd();
  });
  const shown = quantiles.map(
    ({ probability, score }) => `${probability * 100} % ≤ ${score.toFixed(decimalsOf(resolution) + 1)}`,
  );
  return [title, ...lines, `quantiles (±${resolution / 2}): ${shown.join(', ')}`].join('\n');
}

/** A job's failures by task and kind, with an example of each. */
export function failureTable({ tasks }: GetJobCoverageResponse): string {
  const rows = tasks.flatMap(({ taskId, failures }) =>
    failures.map((one) => [
      taskId,
      one.errorClass,
      Number(one.items),
      one.exampleItemNo,
      firstLine(one.exampleMessage),
    ]),
  );
  return table(['task', 'error', 'items', 'e.g. item', 'its message'], rows);
}

const firstLine = (text: string): string => text.split('\n', 1)[0]!.slice(0, 100);

/** One line about how two jobs agree. */
export function agreementText(agreement: GetScoreAgreementResponse): string {
  const { pairs, pearson, spearman, meanDifference, rmsDifference, scoreUnits } = agreement;
  const number = (value: number | undefined): string => (value === undefined ? 'undefined' : value.toFixed(3));
  return (
    `${pairs} molecules in both: Pearson ${number(pearson)}, Spearman ${number(spearman)}, ` +
    `mean difference ${number(meanDifference)}, RMS ${number(rmsDifference)} ${scoreUnits}`
  );
}
