import type { DescService } from '@bufbuild/protobuf';
import type { ServiceImpl } from '@connectrpc/connect';

/** One proto service with its handlers: the unit that is served on every transport. */
export interface BoundService {
  service: DescService;
  impl: Partial<ServiceImpl<DescService>>;
}

/** Pairs a service with its handlers, whose types are checked. A method left out answers UNIMPLEMENTED. */
export function bind<S extends DescService>(service: S, impl: Partial<ServiceImpl<S>>): BoundService {
  return { service, impl };
}
