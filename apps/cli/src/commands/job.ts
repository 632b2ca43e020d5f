import type { Command } from 'commander';
import type { JsonObject, JsonValue } from '@bufbuild/protobuf';
import { timestampDate } from '@bufbuild/protobuf/wkt';
import { uuidv7, type Env } from '@mad/process';
import { CachePolicy, JobSchema, JobService, JobState, JobWaitingSchema, TenantJobSchema } from '@mad/proto/catalog';
import { JobEventSchema, JobRunService, PoseSchema, WorkItemSchema } from '@mad/proto/results';
import { ageOf } from '../cache-text.ts';
import { action } from '../command.ts';
import { CommandFailure, EXIT } from '../failure.ts';
import { counts, eventRow, hitTable, standingLines, stateName, summary } from '../job-text.ts';
import { listHits, moleculeNames, setByName, submitJob, watched } from '../jobs.ts';
import { jsonOf, table } from '../output.ts';
import { allPages } from '../pages.ts';
import { asMember } from '../session.ts';
import { jobPoseCommands } from './job-poses.ts';
import { jobStatisticsCommands } from './job-statistics.ts';
import { pipelineByName } from './pipeline.ts';

interface SubmitOptions {
  set: string;
  param: string[];
  name: string;
  priority: number;
  cache: string;
  minConfidence: number;
  maxAge: string;
  watch?: boolean;
}

interface HitsOptions {
  limit: number;
  task: string;
  filter: string;
  bestPerMolecule?: boolean;
  bestPose?: boolean;
}

/** job submit, list, show, watch, cancel, events, poses, histogram, compare, failures; hits. */
export function jobCommands(mad: Command, env: Env): void {
  const job = mad.command('job').description('screening and docking jobs');
  job
    .command('submit <pipeline>')
    .description('run the newest version of a pipeline over a library')
    .requiredOption('--set <name>', 'the library, by name or id')
    .option('--param <name=value...>', "the pipeline's parameters; values are JSON or plain text", [])
    .option('--name <name>', 'a name for people', '')
    .option('--priority <n>', '−10 (last) to 10 (first)', Number, 0)
    .option('--cache <policy>', 'use, refresh, bypass or only', 'use')
    .option('--min-confidence <share>', 'take no earlier result below this, 0–1', Number, 0)
    .option('--max-age <age>', 'take no earlier result older than this: 45s, 90m, 12h, 30d', '')
    .option('--watch', 'show progress until it ends')
    .action(
      action<SubmitOptions>(env, async ({ settings, output, options }, pipeline) => {
        const signed = await asMember(settings);
        const { pipelineId } = await pipelineByName(signed, pipeline);
        const submitted = await submitJob(signed, {
          pipelineId,
          moleculeSetId: await setByName(signed, options.set),
          parameters: parametersOf(options.param),
          name: options.name,
          priority: options.priority,
          cachePolicy: policyOf(options.cache),
          minConfidence: options.minConfidence,
          maxAgeS: ageOf(options.maxAge),
        });
        output.note(`job ${submitted.jobId}`);
        const ended = options.watch ? await watched(signed, submitted.jobId, output) : submitted;
        output.answer(jsonOf(JobSchema, ended), summary(ended));
        if (ended.state === JobState.FAILED) process.exitCode = EXIT.failed;
      }),
    );
  job
    .command('list')
    .description('jobs, newest first')
    .option('--limit <n>', 'at most this many', Number, 50)
    .action(
      action<{ limit: number }>(env, async ({ settings, output, options }) => {
        const { api, orgId } = await asMember(settings);
        const jobs = await allPages(
          (pageToken) => api.client(JobService).listJobs({ orgId, pageToken }),
          (page) => page.jobs,
          options.limit,
        );
        const rows = jobs.map((one) => [
          one.jobId,
          one.name,
          stateName(one.state),
          ...counts(one.counters),
          timestampDate(one.createTime!).toISOString(),
        ]);
        const headings = ['job', 'name', 'state', 'requested', 'cached', 'scored', 'failed', 'pending', 'created'];
        output.answer(
          jobs.map((one) => jsonOf(JobSchema, one)),
          table(headings, rows),
        );
      }),
    );
  job
    .command('show <job>')
    .description('where a job stands, in its tenant too, and what it waits for')
    .action(
      action(env, async ({ settings, output }, jobId) => {
        const { api, orgId } = await asMember(settings);
        const { job: found, tenant, waiting } = await api.client(JobService).getJob({ orgId, jobId: jobId });
        const standing = {
          tenant: jsonOf(TenantJobSchema, tenant),
          waiting: jsonOf(JobWaitingSchema, waiting),
        };
        output.answer(
          { ...(jsonOf(JobSchema, found) as object), ...standing },
          [summary(found!), ...standingLines(tenant, waiting)].join('\n'),
        );
      }),
    );
  job
    .command('watch <job>')
    .description('show progress until the job ends')
    .action(
      action(env, async ({ settings, output }, jobId) => {
        const signed = await asMember(settings);
        const ended = await watched(signed, jobId, output);
        output.answer(jsonOf(JobSchema, ended), summary(ended));
        if (ended.state === JobState.FAILED) process.exitCode = EXIT.failed;
      }),
    );
  job
    .command('cancel <job>')
    .description('end a job; what has finished stays')
    .action(
      action(env, async ({ settings, output }, jobId) => {
        const { api, orgId } = await asMember(settings);
        const { job: found } = await api.client(JobService).cancelJob({ orgId, jobId: jobId, requestId: uuidv7() });
        output.answer(jsonOf(JobSchema, found), summary(found!));
      }),
    );
  job
    .command('events <job>')
    .description('what happened to a job, in order')
    .action(
      action(env, async ({ settings, output }, jobId) => {
        const { api, orgId } = await asMember(settings);
        const events = await allPages(
          (pageToken) => api.client(JobRunService).listJobEvents({ orgId, jobId: jobId, pageToken }),
          (page) => page.events,
        );
        output.answer(
          events.map((one) => jsonOf(JobEventSchema, one)),
          table(['no', 'time', 'event', 'detail'], events.map(eventRow)),
        );
      }),
    );
  job
    .command('poses <job> <item>')
    .description('the docked poses of one item, best first')
    .action(
      action(env, async ({ settings, output }, jobId, itemNo) => {
        const { api, orgId } = await asMember(settings);
        const poses = await allPages(
          (pageToken) =>
            api.client(JobRunService).listPoses({ orgId, jobId: jobId, itemNo: Number(itemNo), pageToken }),
          (page) => page.poses,
        );
        const rows = poses.map((pose) => [
          pose.replicate,
          pose.poseRank,
          pose.score,
          pose.rawScore,
          pose.rmsdLb,
          pose.rmsdUb,
        ]);
        const headings = ['replica', 'rank', 'kcal/mol', 'raw', 'rmsd l.b. Å', 'rmsd u.b. Å'];
        output.answer(
          poses.map((one) => jsonOf(PoseSchema, one)),
          table(headings, rows),
        );
      }),
    );
  jobStatisticsCommands(job, env);
  jobPoseCommands(job, env);
  mad
    .command('hits <job>')
    .description("a job's best molecules")
    .option('--limit <n>', 'at most this many', Number, 10)
    .option('--task <id>', "the task; default: the job's last that gives scores", '')
    .option(
      '--filter <conditions>',
      'e.g. "score <= -7 AND molecular_weight < 500 AND source = fresh"; names: score, rank, source, molecular_weight, ' +
        'logp, tpsa, hbd, hba, rotatable_bonds',
      '',
    )
    .option('--best-per-molecule', 'each molecule once')
    .option('--best-pose', 'with each hit its best pose')
    .action(
      action<HitsOptions>(env, async ({ settings, output, options }, jobId) => {
        const signed = await asMember(settings);
        const { limit, task: taskId, filter, bestPerMolecule, bestPose: includeBestPose } = options;
        const choice = { limit, taskId, filter, bestPerMolecule, includeBestPose };
        const dropped = new Set<string>();
        const hits = await listHits(signed, jobId, choice, (time) => dropped.add(timestampDate(time).toISOString()));
        for (const time of dropped)
          output.note(`its results were dropped at ${time}: these are the hits that were kept`);
        const names = await moleculeNames(signed, hits);
        output.answer(
          hits.map((one) => jsonOf(WorkItemSchema, one)),
          hitTable(hits, names),
        );
      }),
    );
}

/** "reference=CCO" and "exhaustiveness=8": a value that reads as JSON is JSON, any other is text. */
export function parametersOf(pairs: string[]): JsonObject {
  return Object.fromEntries(
    pairs.map((pair): [string, JsonValue] => {
      const at = pair.indexOf('=');
      if (at < 1) throw new CommandFailure(`--param ${pair}: write name=value`, EXIT.usage);
      const text = pair.slice(at + 1);
      try {
        return [pair.slice(0, at), JSON.parse(text) as JsonValue];
      } catch {
        return [pair.slice(0, at), text];
      }
    }),
  );
}

function policyOf(name: string): CachePolicy {
  const policies: Record<string, CachePolicy> = {
    use: CachePolicy.USE,
    refresh: CachePolicy.REFRESH,
    bypass: CachePolicy.BYPASS,
    only: CachePolicy.ONLY,
  };
  const policy = policies[name];
  if (policy === undefined) throw new CommandFailure(`--cache ${name}: use, refresh, bypass or only`, EXIT.usage);
  return policy;
}
