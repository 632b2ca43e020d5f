/** A molecule's property that hits may be filtered by, as its column is called. */
const PROPERTIES = ['molecular_weight', 'logp', 'tpsa', 'hbd', 'hba', 'rotatable_bonds'] as const;
export type PropertyName = (typeof PROPERTIES)[number];

export type Comparison = '<' | '<=' | '=' | '>=' | '>';

/** A bound of the score. */
export interface ScoreTerm {
  comparison: Comparison;
  value: number;
}

/** A bound of a property. */
export interface PropertyTerm extends ScoreTerm {
  property: PropertyName;
}

/** Which hits are wanted. All of it must hold. */
export interface HitFilter {
  score: ScoreTerm[];
  properties: PropertyTerm[];
  source: 'cached' | 'fresh' | undefined;
  /** Only so many of the best; undefined means all. */
  maxRank: number | undefined;
}

/** A filter that cannot be read, in words for whoever wrote it. */
export class FilterError extends Error {
  override readonly name = 'FilterError';
}

const TERM = /^\s*([a-z_]+)\s*(<=|>=|=|<|>)\s*([^\s<=>]+)\s*$/;
const NAMES = `score, rank, source, ${PROPERTIES.join(', ')}`;
const MAX_TERMS = 20;

/** Reads "score <= -7 AND molecular_weight < 500"; the empty text wants all. Throws a FilterError. */
export function parseFilter(text: string): HitFilter {
  const filter: HitFilter = { score: [], properties: [], source: undefined, maxRank: undefined };
  if (text.trim() === '') return filter;
  const terms = text.split(/\bAND\b/);
  if (terms.length > MAX_TERMS) throw new FilterError(`has more than ${MAX_TERMS} conditions`);
  for (const term of terms) addTerm(filter, term);
  return filter;
}

function addTerm(filter: HitFilter, term: string): void {
  const [, name, comparison, value] = TERM.exec(term) ?? [];
  if (name === undefined) {
    throw new FilterError(`'${term.trim()}' is no condition: write name <= number, and AND between two`);
  }
  if (name === 'source') {
    if (comparison !== '=' || (value !== 'cached' && value !== 'fresh')) {
      throw new FilterError('source: write source = cached or source = fresh');
    }
    if (filter.source !== undefined && filter.source !== value) throw new FilterError('source: cannot be both');
    filter.source = value;
    return;
  }
  const bound = { comparison: comparison as Comparison, value: numberOf(name, value!) };
  if (name === 'score') filter.score.push(bound);
  else if (name === 'rank') filter.maxRank = Math.min(filter.maxRank ?? Infinity, maxRankOf(bound));
  else if ((PROPERTIES as readonly string[]).includes(name)) {
    filter.properties.push({ ...bound, property: name as PropertyName });
  } else throw new FilterError(`${name}: is none of ${NAMES}`);
}

function numberOf(name: string, text: string): number {
  const value = /^[-−]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(text) ? Number(text.replace('−', '-')) : Number.NaN;
  if (!Number.isFinite(value)) throw new FilterError(`${name}: '${text}' is no number`);
  return value;
}

function maxRankOf({ comparison, value }: ScoreTerm): number {
  const most = comparison === '<' ? Math.ceil(value) - 1 : Math.floor(value);
  if ((comparison !== '<' && comparison !== '<=') || most < 1) throw new FilterError('rank: write rank <= n, from 1');
  return most;
}

/** Whether the score's bounds leave out hits that are better than some they let in: ranks are then unknown. */
export function leavesOutBetter({ score }: HitFilter, lowerIsBetter: boolean): boolean {
  const worse = lowerIsBetter ? ['>', '>=', '='] : ['<', '<=', '='];
  return score.some(({ comparison }) => worse.includes(comparison));
}
