import { openBroadcast, type Broadcast, type PubSub } from '@mad/cache';

const CHANNEL = 'catalog:tasks';
/** Other processes are told at once and then at most so often: every telling has all waiting workers look. */
const TELL_EVERY_MS = 20;

/**
 * Wakes those who wait for tasks, here and in the other processes of catalog. Nothing depends on it but how soon they
 * look again.
 */
export class TaskSignal {
  #count = 0;
  #ended = false;
  readonly #waiting = new Set<() => void>();
  #others: Broadcast | undefined;
  #toldAt = Number.NEGATIVE_INFINITY;
  #telling: NodeJS.Timeout | undefined;

  /** Opens the signal; other processes are reached through `pubSub`. */
  static async open(pubSub: PubSub): Promise<TaskSignal> {
    const signal = new TaskSignal();
    signal.#others = await openBroadcast(pubSub, CHANNEL, () => signal.#wake());
    return signal;
  }

  /** How often it was raised: take it before looking, so that what comes between looking and waiting is not missed. */
  get count(): number {
    return this.#count;
  }

  /** True when nobody shall wait any more. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Says that tasks were queued, or that somebody may run more. */
  raise(): void {
    this.#wake();
    if (this.#others === undefined || this.#telling !== undefined) return;
    const waitMs = this.#toldAt + TELL_EVERY_MS - performance.now();
    if (waitMs <= 0) this.#tell();
    else this.#telling = setTimeout(() => this.#tell(), waitMs).unref();
  }

  /** Sends everybody here away: the process ends. */
  end(): void {
    this.#ended = true;
    this.#wake();
  }

  /** Leaves the other processes alone. */
  async close(): Promise<void> {
    clearTimeout(this.#telling);
    await this.#others?.close();
    this.#others = undefined;
  }

  /** Resolves when it was raised since `seen`, after `ms` milliseconds, or when the signal aborts. */
  async wait(seen: number, ms: number, signal: AbortSignal): Promise<void> {
    if (this.#count !== seen || signal.aborted) return;
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', wake);
        this.#waiting.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, ms);
      signal.addEventListener('abort', wake, { once: true });
      this.#waiting.add(wake);
    });
  }

  #wake(): void {
    this.#count += 1;
    for (const wake of this.#waiting) wake();
  }

  #tell(): void {
    this.#telling = undefined;
    this.#toldAt = performance.now();
    this.#others?.tell(null);
  }
}
