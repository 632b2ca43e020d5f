import type { Command } from 'commander';
import type { Env } from '@mad/process';
import {
  GetJobCoverageResponseSchema,
  GetScoreAgreementResponseSchema,
  GetScoreHistogramResponseSchema,
  JobStatisticsService,
  ScorePairSchema,
} from '@mad/proto/results';
import { action } from '../command.ts';
import { moleculeNames } from '../jobs.ts';
import { jsonOf, table } from '../output.ts';
import { allPages } from '../pages.ts';
import { asMember } from '../session.ts';
import { agreementText, failureTable, histogramText } from '../statistics-text.ts';

interface CompareOptions {
  limit: number;
  task: string;
  otherTask: string;
}

/** job histogram, compare, failures. `job` is the family they belong to. */
export function jobStatisticsCommands(job: Command, env: Env): void {
  job
    .command('histogram <job>')
    .description("how a task's scores are spread, drawn in text")
    .option('--task <id>', "the task; default: the job's last that gives scores", '')
    .option('--bins <n>', 'at most this many bins; 0 means the finest', Number, 30)
    .action(
      action<{ task: string; bins: number }>(env, async ({ settings, output, options }, jobId) => {
        const { api, orgId } = await asMember(settings);
        const request = { orgId, jobId, taskId: options.task, maxBins: options.bins };
        const histogram = await api.client(JobStatisticsService).getScoreHistogram(request);
        output.answer(jsonOf(GetScoreHistogramResponseSchema, histogram), histogramText(histogram));
      }),
    );
  job
    .command('compare <job> <other>')
    .description('two jobs over the same molecules: how they agree, and both scores, best of the first job first')
    .option('--limit <n>', 'at most this many molecules', Number, 10)
    .option('--task <id>', "the first job's task; default: its last that gives scores", '')
    .option('--other-task <id>', "the other's task; default: its last that gives scores", '')
    .action(
      action<CompareOptions>(env, async ({ settings, output, options }, jobId, otherJobId) => {
        const signed = await asMember(settings);
        const client = signed.api.client(JobStatisticsService);
        const request = {
          orgId: signed.orgId,
          jobId,
          otherJobId,
          taskId: options.task,
          otherTaskId: options.otherTask,
        };
        const agreement = await client.getScoreAgreement(request);
        const pageSize = Math.min(Math.max(options.limit, 1), 1000);
        const pairs = await allPages(
          (pageToken) => client.listScorePairs({ ...request, pageSize, pageToken }),
          (page) => page.pairs,
          options.limit,
        );
        const names = await moleculeNames(signed, pairs);
        const rows = pairs.map((pair) => [
          pair.rank,
          `${pair.otherRankEstimated ? '~' : ''}${pair.otherRank}`,
          names.get(pair.moleculeId) ?? pair.moleculeId,
          pair.score.toFixed(3),
          pair.otherScore.toFixed(3),
          pair.difference.toFixed(3),
        ]);
        const headings = ['rank', 'other rank', 'molecule', `score, ${agreement.scoreUnits}`, 'other', 'difference'];
        output.answer(
          {
            agreement: jsonOf(GetScoreAgreementResponseSchema, agreement),
            pairs: pairs.map((one) => jsonOf(ScorePairSchema, one)),
          },
          `${agreementText(agreement)}\n${table(headings, rows)}`,
        );
      }),
    );
  job
    .command('failures <job>')
    .description('what failed, by kind of error, most frequent first')
    .action(
      action(env, async ({ settings, output }, jobId) => {
        const { api, orgId } = await asMember(settings);
        const coverage = await api.client(JobStatisticsService).getJobCoverage({ orgId, jobId });
        output.answer(jsonOf(GetJobCoverageResponseSchema, coverage), failureTable(coverage));
      }),
    );
}
