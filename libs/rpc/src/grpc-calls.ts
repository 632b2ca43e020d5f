import {
  create,
  type DescMessage,
  type DescMethod,
  type DescMethodStreaming,
  type DescMethodUnary,
  type MessageInitShape,
  type MessageShape,
} from '@bufbuild/protobuf';
import { Code, ConnectError, type StreamResponse, type UnaryResponse } from '@connectrpc/connect';
import { status as grpcStatus, type Metadata, type StatusObject } from '@grpc/grpc-js';
import { decode, encode, pathOf } from './codec.ts';
import type { Line } from './connection.ts';
import { LazyUnaryResponse } from './lazy-response.ts';
import { headersToMetadata, metadataToHeaders } from './metadata.ts';
import { RequestWriter, type ClientCall } from './request-writer.ts';
import { ResponseReader } from './response-reader.ts';
import { errorOfStatus } from './status.ts';
import { neverConnected, unreachable } from './unreachable.ts';

/** What belongs to one call beside its message. */
export interface CallSettings {
  signal: AbortSignal | undefined;
  /** Milliseconds from now, undefined for no deadline. */
  timeoutMs: number | undefined;
  header: Headers | undefined;
}

function begin({ channel }: Line, method: DescMethod, { timeoutMs }: CallSettings): ClientCall {
  return channel.createCall(
    pathOf(method),
    timeoutMs === undefined ? Infinity : Date.now() + timeoutMs,
    null,
    null,
    null,
  );
}

/** One request, one response. */
export function callUnary<I extends DescMessage, O extends DescMessage>(
  line: Line,
  method: DescMethodUnary<I, O>,
  settings: CallSettings,
  message: MessageShape<I>,
): Promise<UnaryResponse<I, O>> {
  return new Promise((resolve, reject) => {
    // Before the call exists: encoding may throw.
    const body = encode(method.input, message);
    const requestMetadata = headersToMetadata(settings.header, Code.InvalidArgument);
    const call = begin(line, method, settings);
    let metadata: Metadata | undefined;
    let bytes: Buffer | undefined;
    let extra = false;
    call.start(requestMetadata, {
      onReceiveMetadata: (received) => {
        metadata = received;
      },
      onReceiveMessage: (received: Buffer) => {
        if (bytes) extra = true;
        bytes ??= received;
      },
      onReceiveStatus: (status) => {
        stopListening();
        if (status.code !== grpcStatus.OK) {
          reject(errorOf(status, { line, method, signal: settings.signal }));
        } else if (bytes === undefined || extra) {
          const what = `${extra ? 'extra' : 'missing'} output message for unary method`;
          reject(new ConnectError(`protocol error: ${what}`, Code.Unimplemented));
        } else {
          try {
            resolve(new LazyUnaryResponse(method, decode(method.output, bytes), metadata, status.metadata));
          } catch (error) {
            reject(ConnectError.from(error, Code.Internal));
          }
        }
      },
    });
    const stopListening = cancelOnAbort(call, settings.signal);
    call.sendMessageWithContext({}, body);
    call.halfClose();
    call.startRead();
  });
}

/** A call with a stream on either side. Resolves when the response's header arrived. */
export async function callStream<I extends DescMessage, O extends DescMessage>(
  line: Line,
  method: DescMethodStreaming<I, O>,
  settings: CallSettings,
  input: AsyncIterable<MessageInitShape<I>>,
  readAhead: number,
): Promise<StreamResponse<I, O>> {
  const requestMetadata = headersToMetadata(settings.header, Code.InvalidArgument);
  const call = begin(line, method, settings);
  const trailer = new Headers();
  const reader = new ResponseReader<MessageShape<O>>(call, (bytes) => decode(method.output, bytes), readAhead);
  let inputError: unknown;
  const writer = new RequestWriter(
    call,
    input,
    (message) => encode(method.input, create(method.input, message)),
    (error) => {
      inputError = error;
      call.cancelWithStatus(grpcStatus.CANCELLED, 'request stream failed');
    },
  );
  const header = new Promise<Headers>((resolve, reject) => {
    call.start(requestMetadata, {
      onReceiveMetadata: (received) => resolve(metadataToHeaders(received)),
      onReceiveMessage: (bytes: Buffer) => reader.push(bytes),
      onReceiveStatus: (status) => {
        stopListening();
        writer.close();
        if (status.code === grpcStatus.OK) {
          metadataToHeaders(status.metadata).forEach((value, key) => trailer.append(key, value));
          resolve(new Headers());
          reader.end(undefined);
        } else {
          const error =
            inputError === undefined
              ? errorOf(status, { line, method, signal: settings.signal })
              : ConnectError.from(inputError);
          reject(error); // no effect once the header arrived
          reader.end(error);
        }
      },
    });
  });
  const stopListening = cancelOnAbort(call, settings.signal);
  reader.start();
  void writer.run();
  return { stream: true, service: method.parent, method, header: await header, trailer, message: reader };
}

function errorOf(
  status: StatusObject,
  { line, method, signal }: { line: Line; method: DescMethod; signal: AbortSignal | undefined },
): ConnectError {
  if (signal?.aborted) return ConnectError.from(signal.reason, Code.Canceled);
  return neverConnected(status) ? unreachable(method, line, status) : errorOfStatus(status);
}

/** Cancels the call when the signal aborts. Returns the function that stops listening. */
function cancelOnAbort(call: ClientCall, signal: AbortSignal | undefined): () => void {
  if (signal === undefined) return () => {};
  const onAbort = (): void => call.cancelWithStatus(grpcStatus.CANCELLED, 'Cancelled on client');
  if (signal.aborted) onAbort();
  else signal.addEventListener('abort', onAbort, { once: true });
  return () => signal.removeEventListener('abort', onAbort);
}
