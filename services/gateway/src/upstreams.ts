import type { DescService } from '@bufbuild/protobuf';
import { Code, ConnectError, type Interceptor, type Transport } from '@connectrpc/connect';
import type { Logger } from '@mad/process';
import * as catalog from '@mad/proto/catalog';
import * as identity from '@mad/proto/identity';
import * as provisioner from '@mad/proto/provisioner';
import * as results from '@mad/proto/results';
import { grpcTransport, type GrpcTransport } from '@mad/rpc';

/** The services that outside users reach through the gateway, and how each is reached. */
export interface Upstreams {
  services: { service: DescService; transport: Transport }[];
  identity: GrpcTransport;
  provisioner: GrpcTransport;
  close(): void;
}

/** host:port of each service's gRPC listener. */
export interface Addresses {
  identity: string;
  catalog: string;
  results: string;
  provisioner: string;
}

const contracts = { identity, catalog, results, provisioner };

/** Opens one channel per service; every proto service of its package is reached over it. */
export function openUpstreams(addresses: Addresses, logger: Logger): Upstreams {
  const options = { interceptors: [logUnreachable(logger)] };
  const transports = {
    identity: grpcTransport(addresses.identity, options),
    catalog: grpcTransport(addresses.catalog, options),
    results: grpcTransport(addresses.results, options),
    provisioner: grpcTransport(addresses.provisioner, options),
  };
  const services = Object.entries(contracts).flatMap(([owner, contract]) =>
    Object.values(contract)
      .filter(isService)
      .map((service) => ({ service, transport: transports[owner as keyof Addresses] })),
  );
  return {
    services,
    identity: transports.identity,
    provisioner: transports.provisioner,
    close: () => Object.values(transports).forEach((transport) => transport.close()),
  };
}

/** Keeps in the log why a service was not reached, which its users are not told. */
function logUnreachable(logger: Logger): Interceptor {
  return (next) => async (request) => {
    try {
      return await next(request);
    } catch (error) {
      if (error instanceof ConnectError && error.code === Code.Unavailable && error.cause instanceof Error) {
        logger.warn({ message: error.rawMessage, cause: error.cause.message }, 'upstream not reachable');
      }
      throw error;
    }
  };
}

const isService = (value: unknown): value is DescService =>
  typeof value === 'object' && value !== null && (value as { kind?: string }).kind === 'service';
