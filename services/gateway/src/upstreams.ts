import type { DescService } from '@bufbuild/protobuf';
import type { Transport } from '@connectrpc/connect';
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
export function openUpstreams(addresses: Addresses): Upstreams {
  const transports = {
    identity: grpcTransport(addresses.identity),
    catalog: grpcTransport(addresses.catalog),
    results: grpcTransport(addresses.results),
    provisioner: grpcTransport(addresses.provisioner),
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

const isService = (value: unknown): value is DescService =>
  typeof value === 'object' && value !== null && (value as { kind?: string }).kind === 'service';
