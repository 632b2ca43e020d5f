/** Which results of the cache: all that is said holds of each. */
export interface CachePredicate {
  task?: string | undefined;
  /** "vina" in any version, "vina@1.2.3" in this one. */
  engine?: string | undefined;
  computedFrom?: Date | undefined;
  computedBefore?: Date | undefined;
  smiles?: string | undefined;
  jobId?: string | undefined;
  includePinned: boolean;
}

/** A condition on an entry `c`, with the parameters that its `$n`, counted from `first`, stand for. */
export interface Condition {
  sql: string;
  params: unknown[];
}

/** What is wrong with a predicate; undefined when nothing is. */
export function predicateProblem(predicate: CachePredicate): string | undefined {
  const { task, engine, computedFrom: from, computedBefore: before, smiles, jobId } = predicate;
  if ([task, engine, from, before, smiles, jobId].every((one) => one === undefined)) {
    return 'says nothing: give at least one of task, engine, computed_from, computed_before, smiles, job_id';
  }
  if (from !== undefined && before !== undefined && from >= before)
    return 'computed_from must be before computed_before';
  return undefined;
}

/**
 * The entries that a predicate means, as SQL: only what is said is in it, so that each condition finds its index. What is
 * invalid already is never meant.
 */
export function conditionOf(predicate: CachePredicate, first: number): Condition {
  const { task, engine, computedFrom, computedBefore, smiles, jobId, includePinned } = predicate;
  const params: unknown[] = [];
  const next = (value: unknown): string => `$${first + params.push(value) - 1}`;
  const parts = [includePinned ? `c.status IN ('valid', 'pinned')` : `c.status = 'valid'`];
  if (task !== undefined) parts.push(`c.task = ${next(task)}`);
  if (engine?.includes('@')) parts.push(`c.engine COLLATE "C" = ${next(engine)}`);
  // In the order of bytes "A" follows "@": all versions of one engine, and no engine whose name only begins alike.
  else if (engine !== undefined) {
    parts.push(`c.engine COLLATE "C" >= ${next(`${engine}@`)} AND c.engine COLLATE "C" < ${next(`${engine}A`)}`);
  }
  if (computedFrom !== undefined) parts.push(`c.created_at >= ${next(computedFrom)}`);
  if (computedBefore !== undefined) parts.push(`c.created_at < ${next(computedBefore)}`);
  if (smiles !== undefined) parts.push(`c.smiles = ${next(smiles)}`);
  if (jobId !== undefined) parts.push(`c.canonical_job_id = ${next(jobId)}`);
  return { sql: parts.join(' AND '), params };
}
