import { timestampMs } from '@bufbuild/protobuf/wkt';
import type { LeasedTask } from '@mad/proto/catalog';
import type { Resources } from './domain/admission.ts';

/** Why a task is stopped before its engine has finished. */
export type StopReason = 'lost' | 'stopping' | 'suspended';

/** The reason of a stopped task's signal. */
export class TaskStopped extends Error {
  readonly why: StopReason;
  constructor(why: StopReason) {
    super(`the task is stopped: ${why}`);
    this.why = why;
  }
}

/** A task this worker holds a lease of. */
export class HeldTask implements Resources {
  readonly orgId: string;
  readonly jobId: string;
  readonly taskExecutionId: string;
  readonly attempt: number;
  readonly engine: string;
  readonly cores: number;
  readonly memoryMb: number;
  /** Of the request that created the job, empty when it had none. */
  readonly traceparent: string;
  /** The newest lease token: a heartbeat renews it. */
  leaseToken: string;
  /** When the lease ends unless renewed, milliseconds since 1970. */
  leaseEndsAt: number;
  itemsDone = 0;
  readonly #controller = new AbortController();

  constructor(lease: LeasedTask) {
    this.orgId = lease.orgId;
    this.jobId = lease.jobId;
    this.taskExecutionId = lease.taskExecutionId;
    this.attempt = lease.attempt;
    this.engine = lease.engine;
    this.cores = lease.cores;
    this.memoryMb = lease.memoryMb;
    this.traceparent = lease.traceparent;
    this.leaseToken = lease.leaseToken;
    this.leaseEndsAt = timestampMs(lease.leaseExpireTime!);
  }

  /** Aborted when the task has to stop. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  stop(why: StopReason): void {
    this.#controller.abort(new TaskStopped(why));
  }

  /** Takes over what a heartbeat extended. */
  renew(lease: LeasedTask): void {
    this.leaseToken = lease.leaseToken;
    this.leaseEndsAt = timestampMs(lease.leaseExpireTime!);
  }

  /** How results and catalog know the execution. */
  get named() {
    const { orgId, taskExecutionId, attempt, leaseToken } = this;
    return { orgId, taskExecutionId, attempt, leaseToken };
  }

  /** How the queue knows the lease. */
  get held() {
    const { orgId, taskExecutionId, attempt, itemsDone } = this;
    return { orgId, taskExecutionId, attempt, itemsDone };
  }
}
