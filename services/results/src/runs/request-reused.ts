import { Code, type ConnectError } from '@connectrpc/connect';
import { rpcError } from '@mad/rpc';

/** Throws ALREADY_EXISTS (REQUEST_ID_REUSED) naming the fields in which a repeated request differs from the first of its id. */
export function refuseReuse(requestId: string, differs: Readonly<Record<string, boolean>>): void {
  const fields = Object.keys(differs).filter((field) => differs[field]);
  if (fields.length > 0) throw reused(requestId, fields);
}

function reused(requestId: string, fields: readonly string[]): ConnectError {
  const message = `request_id was used for another request: ${fields.join(', ')} differ`;
  const metadata = { fields: fields.join(','), request_id: requestId };
  return rpcError(Code.AlreadyExists, 'REQUEST_ID_REUSED', message, metadata);
}
