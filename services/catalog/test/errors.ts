import { ConnectError } from '@connectrpc/connect';

/** The error a call ends with; throws when it succeeds. */
export async function errorOf(call: Promise<unknown>): Promise<ConnectError> {
  return call.then(
    () => {
      throw new Error('the call succeeded');
    },
    (error: unknown) => ConnectError.from(error),
  );
}
