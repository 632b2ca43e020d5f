/** Wakes those who wait for tasks in this process. Nothing depends on it but how soon they look again. */
export class TaskSignal {
  #count = 0;
  #ended = false;
  readonly #waiting = new Set<() => void>();

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
    this.#count += 1;
    for (const wake of this.#waiting) wake();
  }

  /** Sends everybody away: the process ends. */
  end(): void {
    this.#ended = true;
    this.raise();
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
}
