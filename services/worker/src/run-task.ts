import { createHash } from 'node:crypto';
import { Code, ConnectError } from '@connectrpc/connect';
import { spanned } from '@mad/process';
import { isMessageTooLarge, reasonOf } from '@mad/rpc';
import type { PlanArtifact, StartExecutionResponse } from '@mad/proto/results';
import type { WorkerContext } from './context.ts';
import { EngineError } from './engines/engine.ts';
import { TaskStopped, type HeldTask } from './leased-task.ts';
import { OutcomeSender } from './outcomes.ts';
import { patiently } from './patience.ts';

/** How a task ended for this worker. */
export type TaskEnd = 'finished' | 'failed' | 'lost' | 'stopping' | 'suspended';

/**
 * Runs one leased task: start, engine, outcomes, finish. Never throws: whatever happens is an end, and what is not finished
 * comes back by the lease's end.
 */
export async function runTask(context: WorkerContext, task: HeldTask): Promise<TaskEnd> {
  const { executions, config } = context;
  try {
    const work = await patiently(
      () => executions.startExecution({ ...task.named, worker: config.name }, { signal: task.signal }),
      task.signal,
    ).catch(tooLargeToTake);
    if (!(work instanceof EngineError) && work.alreadyFinished) return 'finished';
    const failure = work instanceof EngineError ? work : await runEngine(context, task, work);
    const ending = failure ? { errorClass: failure.errorClass, errorMessage: failure.message.slice(0, 4_000) } : {};
    await patiently(
      () => executions.finishExecution({ ...task.named, ...ending }, { signal: task.signal }),
      task.signal,
    );
    return failure ? 'failed' : 'finished';
  } catch (error) {
    const end = endOf(error);
    const { orgId: org_id, jobId: job_id, taskExecutionId: task_execution_id } = task;
    if (end === 'lost' && !(error instanceof TaskStopped)) {
      context.logger.warn({ org_id, job_id, task_execution_id, error }, 'a task ended without finishing');
    }
    return end;
  }
}

/** Work that does not fit into a message is too large for every worker; and results has begun the execution by then. */
function tooLargeToTake(error: unknown): EngineError {
  if (!isMessageTooLarge(error)) throw error;
  return new EngineError('ENGINE_FAILED', `its work cannot be taken: ${ConnectError.from(error).rawMessage}`);
}

/** Runs the engine; answers the failure of the task as a whole, undefined when its items have their outcomes. */
async function runEngine(
  context: WorkerContext,
  task: HeldTask,
  work: StartExecutionResponse,
): Promise<EngineError | undefined> {
  const engine = context.engines.get(work.engine);
  if (!engine) return new EngineError('UNKNOWN_TASK', `this worker has no engine ${work.engine}`);
  const { nextBatch } = work;
  const outcomes = new OutcomeSender(context, task, { nextBatch, scoreUnits: engine.scoreUnits(work.task) });
  try {
    const artifacts = await readArtifacts(context, task, work.artifacts);
    const { task: name, parameters = {}, items } = work;
    await spanned(`engine ${name}`, 'internal', { engine: work.engine, items: items.length }, () =>
      engine.run(
        { task: name, parameters, artifacts, items, cores: task.cores },
        (outcome) => outcomes.add(outcome),
        task.signal,
      ),
    );
    await outcomes.flush();
    return undefined;
  } catch (error) {
    task.signal.throwIfAborted();
    // What results refuses of an engine's words, or cannot take, is the engine's failure: the next worker would send the same.
    if (error instanceof ConnectError && (error.code === Code.InvalidArgument || isMessageTooLarge(error))) {
      return new EngineError('ENGINE_FAILED', `its results are refused: ${error.rawMessage}`, { cause: error });
    }
    if (error instanceof ConnectError) throw error;
    // Items that have their outcome keep it; only the others fail with the task.
    await outcomes.flush();
    if (error instanceof EngineError) return error;
    const { taskExecutionId: task_execution_id } = task;
    context.logger.error({ task_execution_id, engine: work.engine, error }, 'the engine failed');
    return new EngineError('ENGINE_FAILED', error instanceof Error ? error.message : String(error), { cause: error });
  }
}

/** Fetches a task's artifacts by parameter; content that is not what was hashed is never run. */
async function readArtifacts(context: WorkerContext, task: HeldTask, artifacts: readonly PlanArtifact[]) {
  const contents: Record<string, string> = {};
  for (const { parameter, artifactId, sha256 } of artifacts) {
    const { content } = await patiently(() => {
      const { orgId, leaseToken } = task;
      return context.artifacts.readArtifact({ orgId, artifactId, leaseToken }, { signal: task.signal });
    }, task.signal);
    const digest = createHash('sha256').update(content).digest('hex');
    if (digest !== sha256) throw new EngineError('ENGINE_FAILED', `${parameter}: artifact ${artifactId} has changed`);
    contents[parameter] = Buffer.from(content).toString('utf8');
  }
  return contents;
}

/** What an error means for the lease. */
function endOf(error: unknown): TaskEnd {
  if (error instanceof TaskStopped) return error.why;
  const suspended = ['TENANT_SUSPENDED', 'TENANT_NOT_PROVISIONED'];
  const { code } = ConnectError.from(error);
  if (code === Code.FailedPrecondition && suspended.includes(reasonOf(error) ?? '')) return 'suspended';
  return 'lost';
}
