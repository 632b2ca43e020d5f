/** Task executions a plan makes at most, for so many molecules: every task is cut into chunks. */
export function plannedTasks(tasks: readonly { chunkSize: number }[], inputs: number): number {
  return tasks.reduce((sum, { chunkSize }) => sum + Math.ceil(inputs / chunkSize), 0);
}

/** How many more jobs may begin. */
export function freePlaces(maxConcurrentJobs: number, active: number): number {
  return Math.max(0, maxConcurrentJobs - active);
}

/** What a job that must wait for a place says of itself. */
export function waitingDetail(maxConcurrentJobs: number): string {
  const jobs = maxConcurrentJobs === 1 ? 'job' : 'jobs';
  return `waiting for another job to end: the organization may run ${maxConcurrentJobs} ${jobs} at once`;
}
