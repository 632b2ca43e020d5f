/** Cores and memory (MiB) that a worker has, or that a task takes. */
export interface Resources {
  cores: number;
  memoryMb: number;
}

/** What is left of a worker's resources beside the tasks it runs; never below zero. */
export function freeResources(all: Resources, running: Iterable<Resources>): Resources {
  const free = { ...all };
  for (const task of running) {
    free.cores -= task.cores;
    free.memoryMb -= task.memoryMb;
  }
  return { cores: Math.max(0, free.cores), memoryMb: Math.max(0, free.memoryMb) };
}

/** Whether a task fits into what is free. */
export function fits(task: Resources, free: Resources): boolean {
  return task.cores <= free.cores && task.memoryMb <= free.memoryMb;
}

/**
 * Divides leased tasks, in their order, into those that fit beside what runs and those to give back. Catalog leases within
 * what a worker says is free, but the answer may be older than the worker's latest start.
 */
export function admit<T extends Resources>(tasks: readonly T[], free: Resources): { admitted: T[]; refused: T[] } {
  const admitted: T[] = [];
  const refused: T[] = [];
  for (const task of tasks) {
    const takes = fits(task, freeResources(free, admitted)) ? admitted : refused;
    takes.push(task);
  }
  return { admitted, refused };
}
