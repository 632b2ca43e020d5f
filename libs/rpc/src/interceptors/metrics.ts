import type { DescMethod } from '@bufbuild/protobuf';
import type { Metrics } from '@mad/process';
import { codeName } from '../code-name.ts';
import type { CallObserver } from './observe.ts';

/** Counts and times calls: the histogram `rpc_duration_seconds` by rpc_service, rpc_method and code. */
export function callMetrics(metrics: Metrics): CallObserver {
  const duration = metrics.histogram({
    name: 'rpc_duration_seconds',
    help: 'Time from a request to the last message of its answer.',
    labelNames: ['rpc_service', 'rpc_method', 'code'],
  });
  // prom-client hashes labels at each observation unless they are bound once.
  const bound = new Map<DescMethod, Map<string, { observe(seconds: number): void }>>();
  return ({ request: { method }, error, durationMs }) => {
    const code = codeName(error?.code);
    let byCode = bound.get(method);
    if (!byCode) bound.set(method, (byCode = new Map()));
    let child = byCode.get(code);
    if (!child) byCode.set(code, (child = duration.labels(method.parent.typeName, method.name, code)));
    child.observe(durationMs / 1000);
  };
}
