import { OperationService, OperationState, type Operation } from '@mad/proto/provisioner';
import type { Api } from './api.ts';
import { CommandFailure, EXIT } from './failure.ts';
import type { Output } from './output.ts';
import { progressBar } from './progress.ts';

/** Shows an operation's progress until it ends. Throws when it cannot be watched to its end. */
export async function watchOperation(api: Api, output: Output, operationId: string): Promise<Operation> {
  let last: Operation | undefined;
  let bar: ReturnType<typeof progressBar> | undefined;
  try {
    for await (const { operation: now } of api.client(OperationService).watchOperation({ operationId })) {
      last = now!;
      const { done, total, unit } = last.progress!;
      bar ??= progressBar(output, last.kind, Number(total));
      bar.update(Number(done), `${unit}, ${last.step}`, Number(total));
    }
  } finally {
    bar?.stop();
  }
  if (last === undefined || last.state === OperationState.RUNNING) {
    throw new CommandFailure('the stream ended before the operation did: watch it again', EXIT.unavailable);
  }
  return last;
}
