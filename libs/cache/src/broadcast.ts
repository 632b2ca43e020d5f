import { randomUUID } from 'node:crypto';
import type { PubSub } from './cache.ts';

/** Hints from each process of a service to all others. Losing one must cost no more than time. */
export interface Broadcast {
  /** Tells the other processes. Never fails and is not waited for: without Redis nobody hears it. */
  tell(hint: unknown): void;
  /** Whether the others are heard now. */
  live(): boolean;
  close(): Promise<void>;
}

interface Envelope {
  from: string;
  hint: unknown;
}

/**
 * Joins a channel: `hear` is called with what other processes tell, never with one's own words. Whatever is published
 * there may arrive, so it looks before it believes, and does not throw.
 */
export async function openBroadcast(
  pubSub: PubSub,
  channel: string,
  hear: (hint: unknown) => void,
): Promise<Broadcast> {
  const self = randomUUID();
  const leave = await pubSub.subscribe(channel, (message) => {
    const { from, hint } = (message ?? {}) as Partial<Envelope>;
    if (from !== undefined && from !== self) hear(hint);
  });
  return {
    tell(hint) {
      const envelope: Envelope = { from: self, hint };
      // An outage is logged by the connection, once; a hint that was lost is not worth a line.
      pubSub.publish(channel, envelope).catch(() => undefined);
    },
    live: () => pubSub.live(),
    close: leave,
  };
}
