const DAY_MS = 86_400_000;

/** How long the results of some jobs are kept. */
export interface RetentionRule {
  /** Empty for every pipeline without a rule of its own. */
  pipelineId: string;
  /** Since the job ended; 0 is for ever. */
  keepDays: number;
  /** Of each task, kept beyond that. */
  keepTopHits: number;
}

/** Jobs that ended before `cutoff` lose their results but for `keep` hits of each task; null keeps all for ever. */
export interface Limit {
  cutoff: Date | null;
  keep: number;
}

/** What rules mean at a certain time. */
export interface Limits {
  byPipeline: ReadonlyMap<string, Limit>;
  /** For every other pipeline. */
  others: Limit;
  /** For jobs whose pipeline nobody noted: any of the rules may be meant, so none may be broken. */
  unknown: Limit;
}

/** What is wrong with rules, and with which (from 0); undefined when nothing is. */
export function rulesProblem(rules: readonly RetentionRule[]): { index: number; description: string } | undefined {
  const seen = new Set<string>();
  for (const [index, { pipelineId }] of rules.entries()) {
    if (seen.has(pipelineId)) {
      const whose = pipelineId === '' ? 'all other pipelines' : `pipeline ${pipelineId}`;
      return { index, description: `is a second rule for ${whose}` };
    }
    seen.add(pipelineId);
  }
  return undefined;
}

/** True when the rules ever delete anything. */
export function deletesAnything(rules: readonly RetentionRule[]): boolean {
  return rules.some(({ keepDays }) => keepDays > 0);
}

/** What the rules mean at a time. Without a rule for all others, these are kept for ever. */
export function limitsAt(rules: readonly RetentionRule[], now: Date): Limits {
  const limitOf = ({ keepDays, keepTopHits }: RetentionRule): Limit => ({
    cutoff: keepDays === 0 ? null : new Date(now.getTime() - keepDays * DAY_MS),
    keep: keepTopHits,
  });
  const byPipeline = new Map(
    rules.filter(({ pipelineId }) => pipelineId !== '').map((rule) => [rule.pipelineId, limitOf(rule)]),
  );
  const rest = rules.find(({ pipelineId }) => pipelineId === '');
  const others: Limit = rest === undefined ? { cutoff: null, keep: 0 } : limitOf(rest);
  const all = [...byPipeline.values(), others];
  const cutoffs = all.map(({ cutoff }) => cutoff?.getTime() ?? -Infinity);
  const earliest = Math.min(...cutoffs);
  const unknown: Limit = {
    cutoff: earliest === -Infinity ? null : new Date(earliest),
    keep: Math.max(...all.map(({ keep }) => keep)),
  };
  return { byPipeline, others, unknown };
}

/** The first ids, of all UUIDv7, of a month's first day and of the next month's; `month` as "2026-11-01". */
export function idsOfMonth(month: string): { low: string; high: string } {
  const [year, number] = month.split('-').map(Number) as [number, number];
  const idAt = (time: number): string => {
    const hex = time.toString(16).padStart(12, '0').padEnd(32, '0');
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
  };
  return { low: idAt(Date.UTC(year, number - 1, 1)), high: idAt(Date.UTC(year, number, 1)) };
}
