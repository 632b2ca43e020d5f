import { EntitySchema } from '@mad/postgres';

/** A row of results.score_histograms. */
export interface ScoreHistogramRow {
  job_id: string;
  task_id: string;
  /** The bin's place, in widths of its task's bins from zero. */
  bin: number;
  items: number;
}

const binKey = { primary: true, primaryKeyConstraintName: 'score_histograms_pkey' } as const;

export const ScoreHistogramEntity = new EntitySchema<ScoreHistogramRow>({
  name: 'score_histograms',
  schema: 'results',
  columns: {
    job_id: { type: 'uuid', ...binKey },
    task_id: { type: 'text', ...binKey },
    bin: { type: 'bigint', ...binKey },
    items: { type: 'bigint' },
  },
});

/** A row of results.failure_counts. */
export interface FailureCountRow {
  job_id: string;
  task_id: string;
  error_class: string;
  items: number;
}

const failureKey = { primary: true, primaryKeyConstraintName: 'failure_counts_pkey' } as const;

export const FailureCountEntity = new EntitySchema<FailureCountRow>({
  name: 'failure_counts',
  schema: 'results',
  columns: {
    job_id: { type: 'uuid', ...failureKey },
    task_id: { type: 'text', ...failureKey },
    error_class: { type: 'text', ...failureKey },
    items: { type: 'bigint' },
  },
});
