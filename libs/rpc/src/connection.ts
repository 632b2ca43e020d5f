import { Channel, connectivityState, type ChannelOptions, type ChannelCredentials } from '@grpc/grpc-js';

/** One channel as calls see it. */
export interface Line {
  readonly channel: Channel;
  readonly address: string;
  /** Why the channel was given up, once it was. */
  failure?: string;
}

/** How to connect. */
export interface ConnectionOptions {
  credentials: ChannelCredentials;
  channel: ChannelOptions;
  connectTimeoutMs: number;
}

/**
 * The channel to one address, replaced when it could not connect for `connectTimeoutMs`. grpc-js itself waits for TCP: two
 * minutes for a host that is gone, for ever for a process that stands still. Calls that wait for a replaced channel end
 * with UNAVAILABLE; the next call connects anew.
 */
export class Connection {
  readonly #address: string;
  readonly #options: ConnectionOptions;
  #line: Line;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(address: string, options: ConnectionOptions) {
    this.#address = address;
    this.#options = options;
    this.#line = this.#open();
  }

  /** The channel to call over now. */
  get line(): Line {
    return this.#line;
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#line.channel.close();
  }

  #open(): Line {
    const { credentials, channel: options } = this.#options;
    const line: Line = { channel: new Channel(this.#address, credentials, options), address: this.#address };
    this.#watch(line, line.channel.getConnectivityState(false));
    return line;
  }

  /** Hears of every state the channel comes to, and times how long it is neither connected nor idle. */
  #watch(line: Line, state: connectivityState): void {
    line.channel.watchConnectivityState(state, Infinity, () => {
      if (this.#closed || line !== this.#line) return;
      const next = line.channel.getConnectivityState(false);
      if (next === connectivityState.READY || next === connectivityState.IDLE) {
        clearTimeout(this.#timer);
        this.#timer = undefined;
      } else {
        this.#timer ??= setTimeout(() => this.#giveUp(), this.#options.connectTimeoutMs).unref();
      }
      this.#watch(line, next);
    });
  }

  #giveUp(): void {
    const line = this.#line;
    line.failure = `no connection within ${this.#options.connectTimeoutMs} ms`;
    this.#timer = undefined;
    this.#line = this.#open();
    line.channel.close();
  }
}
