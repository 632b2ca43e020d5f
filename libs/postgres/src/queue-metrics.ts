import type { Metrics } from '@mad/process';

/** How much one queue holds. */
export interface QueueDepth {
  queue: string;
  waiting: number;
  active: number;
  failed: number;
  /** How long the message that is due longest has been due; 0 when none waits, negative when none is due yet. */
  oldest_seconds: number;
}

/** Gauges over a service's message queues, counted when metrics are read. */
export function registerQueueMetrics(metrics: Metrics, depth: () => Promise<QueueDepth[]>): void {
  const oldest = metrics.gauge({
    name: 'queue_oldest_message_seconds',
    help: 'How long the message that is due longest has been due, by queue.',
    labelNames: ['queue'],
  });
  const messages = metrics.gauge({
    name: 'queue_messages',
    help: 'Messages between services by queue and state: waiting, active, failed.',
    labelNames: ['queue', 'state'],
    async collect() {
      for (const { queue, waiting, active, failed, oldest_seconds: seconds } of await depth()) {
        for (const [state, count] of Object.entries({ waiting, active, failed })) messages.set({ queue, state }, count);
        oldest.set({ queue }, Math.max(0, seconds));
      }
    },
  });
}
