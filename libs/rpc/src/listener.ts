/** One listening port. */
export interface Listener {
  readonly port: number;
  /** Refuses new calls, waits `drainMs` for those in flight, then ends them with UNAVAILABLE. */
  close(drainMs: number): Promise<void>;
}
