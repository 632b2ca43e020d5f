import { Rounds } from '@mad/process';
import { cleanUp, type CleanupOptions, type Places } from './cleanup.ts';

export interface CleanupKeeperOptions extends Omit<CleanupOptions, 'signal'> {
  /** Time between two rounds, in milliseconds. */
  everyMs: number;
}

/**
 * Removes what nobody will go on with, again and again. Beside the sweeper and not in its passes: a server that is slow to
 * lose its databases keeps no operation waiting. Any number of processes may do so: locks decide who does what.
 */
export class CleanupKeeper {
  readonly #rounds: Rounds;

  constructor(options: CleanupKeeperOptions) {
    const places: Places = new Map();
    this.#rounds = new Rounds({ ...options, failure: 'cleaning up failed' }, (signal) =>
      cleanUp({ ...options, signal }, places),
    );
  }

  close(): Promise<void> {
    return this.#rounds.close();
  }
}
