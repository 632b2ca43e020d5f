import { Rounds, type Metrics } from '@mad/process';
import { DIFFERENCES, type DifferenceKind } from '../domain/reconcile.ts';
import { look, type LookOptions } from './look.ts';

export interface ReconcileKeeperOptions extends LookOptions {
  metrics?: Metrics;
  /** Time between two looks, in milliseconds. */
  everyMs: number;
}

/** Compares rows and servers again and again, and tells how they differ by metric. Repairs nothing: that is asked for. */
export class ReconcileKeeper {
  readonly #rounds: Rounds;

  constructor(options: ReconcileKeeperOptions) {
    const { metrics } = options;
    const differences = metrics?.gauge({
      name: 'reconcile_differences',
      help: 'What servers and object store have without a row, or rows without it, by kind, at the last look.',
      labelNames: ['kind'],
    });
    const unreachable = metrics?.gauge({
      name: 'reconcile_unreachable_servers',
      help: 'Servers that did not answer at the last look, and of which nothing is known.',
    });
    const failure = 'comparing rows and servers failed';
    this.#rounds = new Rounds({ ...options, failure }, async () => {
      const { differences: found, unreachable: away } = await look(options);
      const counts = new Map<DifferenceKind, number>(DIFFERENCES.map((kind) => [kind, 0]));
      for (const { kind } of found) counts.set(kind, counts.get(kind)! + 1);
      for (const [kind, count] of counts) differences?.set({ kind }, count);
      unreachable?.set(away.length);
    });
  }

  close(): Promise<void> {
    return this.#rounds.close();
  }
}
