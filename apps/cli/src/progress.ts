import { SingleBar } from 'cli-progress';
import type { Output } from './output.ts';

/** A bar on stderr for people at a terminal; nothing where nobody watches. */
export interface Progress {
  /** `total` where it has become another. */
  update(done: number, detail?: string, total?: number): void;
  stop(): void;
}

/** Shows how far a long action has come. */
export function progressBar(output: Output, what: string, total: number): Progress {
  if (output.json || !process.stderr.isTTY) return { update: () => undefined, stop: () => undefined };
  const bar = new SingleBar({
    format: `${what} {bar} {value}/{total} {detail}`,
    stream: process.stderr,
    hideCursor: true,
    barsize: 30,
  });
  bar.start(total, 0, { detail: '' });
  return {
    update: (done, detail = '', now = total) => {
      bar.setTotal(now);
      bar.update(done, { detail });
    },
    stop: () => bar.stop(),
  };
}
