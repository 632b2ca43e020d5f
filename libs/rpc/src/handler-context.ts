import type { DescMethod, DescService } from '@bufbuild/protobuf';
import {
  Code,
  ConnectError,
  createContextValues,
  type ContextValues,
  type HandlerContext,
  type StreamRequest,
  type UnaryRequest,
} from '@connectrpc/connect';
import type { ServerDuplexStream, ServerReadableStream, ServerUnaryCall, ServerWritableStream } from '@grpc/grpc-js';
import type { Message } from '@bufbuild/protobuf';
import { metadataToHeaders } from './metadata.ts';

/** A call as grpc-js hands it to a handler. */
export type ServerCall =
  | ServerUnaryCall<Message, Message>
  | ServerReadableStream<Message, Message>
  | ServerWritableStream<Message, Message>
  | ServerDuplexStream<Message, Message>;

const completed = new DOMException('The call has completed', 'AbortError');

/** A timer may fire this much before the clock shows its time. */
const CLOCK_SLACK_MS = 2;

/** Connect's HandlerContext over a grpc-js call. What a handler may never touch is made on first use. */
export class GrpcHandlerContext implements HandlerContext {
  readonly requestMethod = 'POST';
  readonly protocolName = 'grpc';
  readonly method: DescMethod;
  /** Set when somebody touched them: only then is there something to send. */
  responseHeaderIfSet?: Headers;
  responseTrailerIfSet?: Headers;
  readonly #call: ServerCall;
  /** Epoch milliseconds, Infinity without deadline. */
  readonly #deadline: number;
  #controller?: AbortController;
  #signal?: AbortSignal;
  #reason?: unknown;
  #requestHeader?: Headers;
  #values?: ContextValues;

  constructor(method: DescMethod, call: ServerCall) {
    this.method = method;
    this.#call = call;
    const deadline = call.getDeadline();
    this.#deadline = typeof deadline === 'number' ? deadline : deadline.getTime();
    (call as NodeJS.EventEmitter).on('cancelled', this.#onCancelled);
  }

  get service(): DescService {
    return this.method.parent;
  }

  get url(): string {
    return `http://${this.#call.getHost()}${this.#call.getPath()}`;
  }

  get values(): ContextValues {
    return (this.#values ??= createContextValues());
  }

  get responseHeader(): Headers {
    return (this.responseHeaderIfSet ??= new Headers());
  }

  get responseTrailer(): Headers {
    return (this.responseTrailerIfSet ??= new Headers());
  }

  get requestHeader(): Headers {
    if (this.#requestHeader === undefined) {
      this.#requestHeader = metadataToHeaders(this.#call.metadata);
      // grpc-js takes the header away; interceptors written for Connect expect to read it.
      const left = this.timeoutMs();
      if (left !== undefined) this.#requestHeader.set('grpc-timeout', `${Math.max(0, left)}m`);
    }
    return this.#requestHeader;
  }

  get signal(): AbortSignal {
    if (this.#signal === undefined) {
      this.#controller = new AbortController();
      this.#signal = this.#controller.signal;
      if (this.#reason !== undefined) this.#controller.abort(this.#reason);
    }
    return this.#signal;
  }

  /** Why the call ended early, or undefined while it is running. */
  get reason(): unknown {
    return this.#reason;
  }

  // A property, so that a handler may pass it on alone.
  readonly timeoutMs = (): number | undefined =>
    this.#deadline === Infinity ? undefined : this.#deadline - Date.now();

  /** Ends the handler's signal; the first reason counts. */
  abort(reason: unknown): void {
    if (this.#reason !== undefined) return;
    this.#reason = reason;
    this.#controller?.abort(reason);
  }

  /** The call was answered. */
  complete(): void {
    this.abort(completed);
  }

  /** Takes over what an interceptor replaced in the request. */
  adopt(request: UnaryRequest | StreamRequest): void {
    this.#requestHeader = request.header;
    this.#signal = request.signal;
    this.#values = request.contextValues;
  }

  // grpc-js reports a passed deadline and a client that went away by the same event.
  readonly #onCancelled = (): void => {
    if (this.#reason !== undefined) return;
    this.abort(
      Date.now() >= this.#deadline - CLOCK_SLACK_MS
        ? new ConnectError('the operation timed out', Code.DeadlineExceeded)
        : new ConnectError('the client cancelled the call', Code.Canceled),
    );
  };
}
