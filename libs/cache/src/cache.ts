/**
 * Values that may be lost at any time. A value is bytes (Uint8Array) or anything JSON can hold; what comes out is a copy
 * of what went in. Methods reject when the store does not answer: callers that must not fail use `readThrough`.
 */
export interface Cache {
  /** The value, or undefined when it was never set, has expired or was dropped. */
  get<T>(key: string): Promise<T | undefined>;
  /** Keeps a value for `ttlMs` at most; at least 1 ms. */
  set(key: string, value: unknown, ttlMs: number): Promise<void>;
  delete(...keys: string[]): Promise<void>;
  close(): Promise<void>;
}

/** Ends a subscription. */
export type Subscription = () => Promise<void>;

/**
 * Messages to whoever listens now; nothing is kept, and a lost connection loses messages. Tell with it that something
 * changed, and let the reader look it up.
 */
export interface PubSub {
  /** Sends any JSON value to every subscriber of a channel, in this process and others. */
  publish(channel: string, message: unknown): Promise<void>;
  /** Calls `handler` for every message from now on, until the returned function is called. A handler must not throw. */
  subscribe(channel: string, handler: (message: unknown) => void): Promise<Subscription>;
  /** Whether what other processes publish arrives now; a connection that died without a word is noticed seconds later. */
  live(): boolean;
  close(): Promise<void>;
}
