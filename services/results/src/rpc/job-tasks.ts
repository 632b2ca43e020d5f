import { invalid } from '@mad/rpc';
import type { JobImage, JobTask } from '../runs/job-image.ts';

/** The job's task of this id; INVALID_ARGUMENT naming `field` when it has none. */
export function taskNamed(job: JobImage, taskId: string, field = 'task_id'): JobTask {
  const task = job.tasks.find((candidate) => candidate.taskId === taskId);
  if (task === undefined) throw invalid(field, `the job has no task ${taskId}`);
  return task;
}

/** The task asked for, or the job's last one that gives scores. */
export function scoringTask(job: JobImage, taskId: string, field = 'task_id'): JobTask {
  if (taskId !== '') return taskNamed(job, taskId, field);
  const task = job.tasks.findLast(({ plan }) => plan.scoreUnits !== '');
  if (task === undefined) throw invalid(field, 'is required: no task of this job gives scores');
  return task;
}
