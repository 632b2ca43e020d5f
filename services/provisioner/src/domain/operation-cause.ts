/**
 * Why an operation ended before it was done, as far as somebody decides by it: its server or the schema's owner was
 * `away`, a lock was `held` by somebody, it `gives_way` to what must not wait. Empty for everything else.
 */
export type OperationCause = '' | 'away' | 'held' | 'gives_way';

/** Whether the next try may succeed though nobody repairs anything. */
export function mayPass(cause: OperationCause): boolean {
  return cause !== '';
}
