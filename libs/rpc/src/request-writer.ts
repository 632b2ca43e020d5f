import type { ChannelInterface } from '@grpc/grpc-js';

/** A client call of grpc-js. */
export type ClientCall = ReturnType<ChannelInterface['createCall']>;

/** Sends request messages with one write in flight: grpc-js completes a write when flow control let it through. */
export class RequestWriter<T> {
  readonly #call: ClientCall;
  readonly #iterator: AsyncIterator<T>;
  readonly #encode: (message: T) => Buffer;
  readonly #onError: (error: unknown) => void;
  #wake: (() => void) | undefined;
  #closed = false;

  /** `onError` hears of a producer that throws or a message that cannot be encoded. */
  constructor(
    call: ClientCall,
    input: AsyncIterable<T>,
    encode: (message: T) => Buffer,
    onError: (error: unknown) => void,
  ) {
    this.#call = call;
    this.#iterator = input[Symbol.asyncIterator]();
    this.#encode = encode;
    this.#onError = onError;
  }

  async run(): Promise<void> {
    try {
      while (!this.#closed) {
        const next = await this.#iterator.next();
        if (this.#closed) return;
        if (next.done) {
          this.#call.halfClose();
          return;
        }
        await this.#write(this.#encode(next.value));
      }
    } catch (error) {
      if (!this.#closed) this.#onError(error);
    }
  }

  /** The call is over: stops waiting and lets the producer clean up. */
  close(): void {
    this.#closed = true;
    this.#wake?.();
    // What the producer throws on its way out has nobody left to hear it.
    void this.#iterator.return?.()?.then(undefined, () => {});
  }

  #write(bytes: Buffer): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
      this.#call.sendMessageWithContext({ callback: () => resolve() }, bytes);
    });
  }
}
