import {
  AggregatorRegistry,
  collectDefaultMetrics,
  Counter,
  Gauge,
  Histogram,
  Registry,
  type CounterConfiguration,
  type GaugeConfiguration,
  type HistogramConfiguration,
} from 'prom-client';

/** The Prometheus metrics of one service. A name asked for twice is the same metric. */
export interface Metrics {
  readonly registry: Registry;
  counter<L extends string = string>(options: Omit<CounterConfiguration<L>, 'registers'>): Counter<L>;
  gauge<L extends string = string>(options: Omit<GaugeConfiguration<L>, 'registers'>): Gauge<L>;
  /** Values in seconds where they are durations; `buckets` default to 1 ms … 60 s. */
  histogram<L extends string = string>(options: Omit<HistogramConfiguration<L>, 'registers'>): Histogram<L>;
  /** The text exposition and its content type. */
  text(): Promise<string>;
  readonly contentType: string;
}

/** Upper bounds in seconds, from an in-memory answer to a long poll. */
const durationBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

/**
 * Metrics labelled with the service's name. `process: true` adds the process's own (memory, CPU, event loop): ask for it
 * once in a process.
 */
export function createMetrics(service: string, options: { process?: boolean } = {}): Metrics {
  const registry = new Registry();
  registry.setDefaultLabels({ service });
  if (options.process) collectDefaultMetrics({ register: registry });
  const registers = [registry];
  const named = <M>(name: string, make: () => M): M => (registry.getSingleMetric(name) as M | undefined) ?? make();
  return {
    registry,
    counter: (config) => named(config.name, () => new Counter({ ...config, registers })),
    gauge: (config) => named(config.name, () => new Gauge({ ...config, registers })),
    histogram: (config) => named(config.name, () => new Histogram({ buckets: durationBuckets, ...config, registers })),
    text: () => registry.metrics(),
    contentType: registry.contentType,
  };
}

/** One exposition for several services of a process. Their metrics differ by the label `service`. */
export async function mergedMetricsText(all: readonly Metrics[]): Promise<string> {
  const exported = await Promise.all(all.map(({ registry }) => registry.getMetricsAsJSON()));
  return AggregatorRegistry.aggregate(exported).metrics();
}
