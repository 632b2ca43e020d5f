import { EventEmitter, once } from 'node:events';
import { Code, ConnectError } from '@connectrpc/connect';
import { Health, HealthCheckResponse_ServingStatus as Status } from '@mad/proto/health';
import { bind, type BoundService } from './bound-service.ts';

/** grpc.health.v1 over the services of this server: serving until it drains. */
export interface HealthService {
  bound: BoundService;
  /** From now on the answer is NOT_SERVING, so that balancers send no more calls. */
  drain(): void;
}

/** Health of the whole server (the empty name) and of each named service. */
export function healthService(names: readonly string[]): HealthService {
  const known = new Set(['', ...names]);
  const changes = new EventEmitter().setMaxListeners(0);
  let draining = false;
  const status = (name: string): Status => {
    if (!known.has(name)) return Status.SERVICE_UNKNOWN;
    return draining ? Status.NOT_SERVING : Status.SERVING;
  };
  const bound = bind(Health, {
    check({ service }) {
      if (!known.has(service)) throw new ConnectError(`no service ${JSON.stringify(service)} here`, Code.NotFound);
      return { status: status(service) };
    },
    async *watch({ service }, { signal }) {
      yield { status: status(service) };
      if (draining) return;
      await once(changes, 'drain', { signal });
      yield { status: status(service) };
    },
  });
  const drain = (): void => {
    draining = true;
    changes.emit('drain');
  };
  return { bound, drain };
}
