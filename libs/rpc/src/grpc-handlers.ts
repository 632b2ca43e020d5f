import { create, type DescMessage, type DescMethod, type Message } from '@bufbuild/protobuf';
import {
  Code,
  ConnectError,
  type HandlerContext,
  type Interceptor,
  type StreamRequest,
  type UnaryRequest,
} from '@connectrpc/connect';
import type {
  sendUnaryData,
  ServerDuplexStream,
  ServerReadableStream,
  ServerUnaryCall,
  ServerWritableStream,
  UntypedHandleCall,
} from '@grpc/grpc-js';
import { sleep } from '@mad/process';
import { answeredError } from './errors.ts';
import { GrpcHandlerContext, type ServerCall } from './handler-context.ts';
import { headersToMetadata, withoutIllegalValues } from './metadata.ts';
import { statusOf } from './status.ts';

type Implementation = (request: unknown, context: HandlerContext) => unknown;
type Messages = AsyncIterable<Message>;
type AnyRequest = UnaryRequest | StreamRequest;
interface AnyResponse {
  message: unknown;
  header: Headers;
  trailer: Headers;
}
type AnyNext = (request: AnyRequest) => Promise<AnyResponse>;
/** Connect types interceptors for requests of its own making. */
type AnyInterceptor = (next: AnyNext) => AnyNext;
type ReadableCall = ServerReadableStream<Message, Message> | ServerDuplexStream<Message, Message>;
type WritableCall = ServerWritableStream<Message, Message> | ServerDuplexStream<Message, Message>;

/** Runs Connect handlers with Connect interceptors as grpc-js handlers. */
export class GrpcHandlers {
  /** Calls being answered. */
  readonly active = new Set<GrpcHandlerContext>();
  readonly #interceptors: Interceptor[];

  constructor(interceptors: readonly Interceptor[]) {
    this.#interceptors = interceptors.toReversed();
  }

  /** The grpc-js handler of one method. */
  handler(method: DescMethod, impl: Implementation): UntypedHandleCall {
    switch (method.methodKind) {
      case 'unary':
        return ((call: ServerUnaryCall<Message, Message>, callback: sendUnaryData<Message>) =>
          this.#answerOnce(method, impl, call, call.request, callback)) as UntypedHandleCall;
      case 'client_streaming':
        return ((call: ServerReadableStream<Message, Message>, callback: sendUnaryData<Message>) =>
          this.#answerOnce(method, impl, call, undefined, callback)) as UntypedHandleCall;
      default:
        return ((call: WritableCall) => this.#answerMany(method, impl, call)) as UntypedHandleCall;
    }
  }

  /** Ends the signal of every call being answered. */
  abortAll(reason: ConnectError): void {
    for (const context of this.active) context.abort(reason);
  }

  async #answerOnce(
    method: DescMethod,
    impl: Implementation,
    call: ServerUnaryCall<Message, Message> | ServerReadableStream<Message, Message>,
    request: Message | undefined,
    callback: sendUnaryData<Message>,
  ): Promise<void> {
    const context = this.#open(method, call);
    try {
      const run = async (message: unknown): Promise<Message> => completed(method.output, await impl(message, context));
      const output = await this.#runOnce(context, request, request ?? requestsOf(call as ReadableCall, context), run);
      sendHeader(call, context);
      callback(null, output, context.responseTrailerIfSet && headersToMetadata(context.responseTrailerIfSet));
    } catch (error) {
      sendHeaderOfError(call, context);
      callback(this.#statusOf(error, context));
    } finally {
      this.#close(context);
    }
  }

  async #runOnce(
    context: GrpcHandlerContext,
    request: Message | undefined,
    input: unknown,
    run: (message: unknown) => Promise<Message>,
  ): Promise<Message> {
    if (this.#interceptors.length === 0) return run(input);
    if (request !== undefined) return (await this.#intercept(context, false, input, run)).message as Message;
    // Interceptors see the one response of a client stream as a stream, as Connect shows it.
    const response = await this.#intercept(context, true, input, async (message) => single(await run(message)));
    return first(response.message as Messages);
  }

  async #answerMany(method: DescMethod, impl: Implementation, call: WritableCall): Promise<void> {
    const context = this.#open(method, call);
    try {
      let headerSent = false;
      for await (const message of await this.#runMany(method, impl, call, context)) {
        if (call.destroyed) break; // leaving the loop runs the handler's finally blocks
        if (!headerSent) sendHeader(call, context);
        headerSent = true;
        if (!call.write(message) && call.writableNeedDrain) await drained(call);
      }
      if (!headerSent) sendHeader(call, context);
      call.end(context.responseTrailerIfSet && headersToMetadata(context.responseTrailerIfSet));
    } catch (error) {
      const status = this.#statusOf(error, context);
      sendHeaderOfError(call, context);
      if (!call.destroyed) call.emit('error', status);
    } finally {
      this.#close(context);
    }
  }

  async #runMany(
    method: DescMethod,
    impl: Implementation,
    call: WritableCall,
    context: GrpcHandlerContext,
  ): Promise<Messages> {
    const request = 'request' in call ? call.request : undefined;
    const run = (message: unknown): Messages =>
      completedEach(method.output, impl(message, context) as AsyncIterable<unknown>);
    if (this.#interceptors.length === 0) return run(request ?? requestsOf(call as ReadableCall, context));
    const input = request === undefined ? requestsOf(call as ReadableCall, context) : single(request);
    const response = await this.#intercept(context, true, input, async (message) =>
      run(request === undefined ? message : await first(message as Messages)),
    );
    return response.message as Messages;
  }

  /** Runs `run` inside the interceptors. Headers and signal are made when one of them looks. */
  async #intercept(
    context: GrpcHandlerContext,
    stream: boolean,
    message: unknown,
    run: (message: unknown) => Promise<unknown>,
  ): Promise<AnyResponse> {
    const { method, service } = context;
    const request = {
      stream,
      method,
      service,
      message,
      requestMethod: context.requestMethod,
      contextValues: context.values,
      get url() {
        return context.url;
      },
      get header() {
        return context.requestHeader;
      },
      get signal() {
        return context.signal;
      },
    } as unknown as AnyRequest;
    let answer: AnyResponse | undefined;
    let next: AnyNext = async (received) => {
      if (received !== request) context.adopt(received);
      answer = {
        stream,
        service,
        method,
        message: await run(received.message),
        get header() {
          return context.responseHeader;
        },
        get trailer() {
          return context.responseTrailer;
        },
      } as AnyResponse;
      return answer;
    };
    for (const interceptor of this.#interceptors) next = (interceptor as unknown as AnyInterceptor)(next);
    const response = await next(request);
    if (response !== answer) {
      context.responseHeaderIfSet = response.header;
      context.responseTrailerIfSet = response.trailer;
    }
    return response;
  }

  #open(method: DescMethod, call: ServerCall): GrpcHandlerContext {
    const context = new GrpcHandlerContext(method, call);
    this.active.add(context);
    return context;
  }

  #close(context: GrpcHandlerContext): void {
    this.active.delete(context);
    context.complete();
  }

  #statusOf(error: unknown, context: GrpcHandlerContext): ReturnType<typeof statusOf> {
    return statusOf(answeredError(error, context.signal), context.responseTrailerIfSet);
  }
}

function sendHeader(call: ServerCall, context: GrpcHandlerContext): void {
  if (context.responseHeaderIfSet) call.sendMetadata(headersToMetadata(context.responseHeaderIfSet));
}

/** What made the header illegal must not keep the error from the caller. */
function sendHeaderOfError(call: ServerCall, context: GrpcHandlerContext): void {
  if (context.responseHeaderIfSet) withoutIllegalValues(context.responseHeaderIfSet);
  sendHeader(call, context);
}

/** A handler may return a plain object of the message's fields. */
function completed(desc: DescMessage, init: unknown): Message {
  return create(desc, init as never);
}

async function* completedEach(desc: DescMessage, source: AsyncIterable<unknown>): AsyncGenerator<Message> {
  for await (const item of source) yield completed(desc, item);
}

/**
 * How long an end of the request stream is held back. Node's HTTP/2 clients (grpc-js and Connect both) cancel by ending the
 * stream and resetting it right after: an end is believed only when no reset followed. This narrows the gap, from nearly
 * always to about one in a hundred; an upload that must be whole also says how many messages it has. A connection that
 * breaks has no such end.
 */
const END_GRACE_MS = 2;

/** Request messages as the handler sees them: pulled one by one, failing with the reason the call was cut. */
async function* requestsOf(call: ReadableCall, context: GrpcHandlerContext): AsyncGenerator<Message> {
  try {
    for await (const message of call.iterator({ destroyOnReturn: false })) yield message as Message;
  } catch (error) {
    throw context.reason instanceof ConnectError ? context.reason : error;
  }
  await sleep(END_GRACE_MS);
  if (context.reason !== undefined) throw context.reason;
}

async function* single<T>(value: T): AsyncGenerator<T> {
  yield value;
}

async function first(source: Messages): Promise<Message> {
  let found: Message | undefined;
  // Read to its end, so that interceptors see the stream end; it has one message.
  for await (const message of source) found ??= message;
  if (found === undefined) throw new ConnectError('protocol error: missing message', Code.Unimplemented);
  return found;
}

/** Resolves when the stream accepts more, or will never accept more. */
function drained(call: WritableCall): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      call.off('drain', done);
      call.off('close', done);
      resolve();
    };
    call.on('drain', done);
    call.on('close', done);
  });
}
