import { ConnectError } from '@connectrpc/connect';
import { codeName, reasonOf, violationsOf } from '@mad/rpc';

/** What a caller can tell of a failure: its code, its reason, the fields it names. */
export interface Failure {
  code: string;
  reason?: string;
  fields?: string[];
}

/** How a call failed; `undefined` when it did not. */
export async function failureOf(call: Promise<unknown>): Promise<Failure | undefined> {
  try {
    await call;
    return undefined;
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    const reason = reasonOf(error);
    const fields = violationsOf(error).map(({ field }) => field);
    return {
      code: codeName(error.code),
      ...(reason === undefined ? {} : { reason }),
      ...(fields.length === 0 ? {} : { fields }),
    };
  }
}
