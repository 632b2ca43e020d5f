import type { ConnectError } from '@connectrpc/connect';
import { status } from '@grpc/grpc-js';
import type { ClientCall } from './request-writer.ts';

interface Waiting<T> {
  resolve: (result: IteratorResult<T>) => void;
  reject: (error: unknown) => void;
}

/**
 * Response messages as an async iterable that reads at most `readAhead` messages ahead of its consumer. A consumer that is
 * behind loses unread messages when an error status arrives (grpc/grpc-node#2764): streams resume by cursor.
 */
export class ResponseReader<T> implements AsyncIterable<T>, AsyncIterator<T> {
  readonly #call: ClientCall;
  readonly #decode: (bytes: Buffer) => T;
  readonly #readAhead: number;
  readonly #queue: T[] = [];
  #reading = false;
  #ended = false;
  #error: ConnectError | undefined;
  #waiting: Waiting<T> | undefined;

  constructor(call: ClientCall, decode: (bytes: Buffer) => T, readAhead: number) {
    this.#call = call;
    this.#decode = decode;
    this.#readAhead = readAhead;
  }

  start(): void {
    this.#read();
  }

  /** A message arrived. */
  push(bytes: Buffer): void {
    this.#reading = false;
    let message: T;
    try {
      message = this.#decode(bytes);
    } catch (error) {
      this.#call.cancelWithStatus(status.INTERNAL, `cannot parse response: ${String(error)}`);
      return;
    }
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting) waiting.resolve({ done: false, value: message });
    else this.#queue.push(message);
    this.#read();
  }

  /** The status arrived; messages already read are still delivered. */
  end(error: ConnectError | undefined): void {
    this.#ended = true;
    this.#error = error;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting) this.next().then(waiting.resolve, waiting.reject);
  }

  next(): Promise<IteratorResult<T>> {
    const value = this.#queue.shift();
    if (value !== undefined) {
      this.#read();
      return Promise.resolve({ done: false, value });
    }
    if (!this.#ended) {
      return new Promise((resolve, reject) => {
        this.#waiting = { resolve, reject };
      });
    }
    const error = this.#error;
    this.#error = undefined;
    return error ? Promise.reject(error) : Promise.resolve({ done: true, value: undefined });
  }

  /** The consumer is done early: tells the server. Connect's clients hide this; abort a signal to stop a stream. */
  return(): Promise<IteratorResult<T>> {
    if (!this.#ended) this.#call.cancelWithStatus(status.CANCELLED, 'Cancelled on client');
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #read(): void {
    if (this.#reading || this.#ended || this.#queue.length >= this.#readAhead) return;
    this.#reading = true;
    this.#call.startRead();
  }
}
