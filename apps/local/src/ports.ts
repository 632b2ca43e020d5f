import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';

/** Where each service listens: gRPC, and Connect over HTTP/1.1. */
export interface ServicePorts {
  port: number;
  connectPort: number;
}

/** Every port of a local system. */
export interface Ports {
  gateway: number;
  identity: ServicePorts;
  catalog: ServicePorts;
  results: ServicePorts;
  provisioner: ServicePorts;
}

/** The documented ports. */
const WANTED = { gateway: 8080, identity: 7001, catalog: 7002, results: 7003, provisioner: 7004 };
const CONNECT_OFFSET = 100;

/**
 * The documented ports where they are free, others where somebody else has them; all others with `anyPorts`. The gateway's
 * is exactly `gateway` where that is given.
 */
export async function choosePorts(options: { anyPorts?: boolean; gateway?: number } = {}): Promise<Ports> {
  const pick = async (wanted: number) => (!options.anyPorts && (await isFree(wanted)) ? wanted : freePort());
  const service = async (wanted: number): Promise<ServicePorts> => ({
    port: await pick(wanted),
    connectPort: await pick(wanted + CONNECT_OFFSET),
  });
  return {
    gateway: options.gateway ?? (await pick(WANTED.gateway)),
    identity: await service(WANTED.identity),
    catalog: await service(WANTED.catalog),
    results: await service(WANTED.results),
    provisioner: await service(WANTED.provisioner),
  };
}

async function isFree(port: number): Promise<boolean> {
  return (await listen(port)) !== undefined;
}

async function freePort(): Promise<number> {
  return (await listen(0))!;
}

/** Listens for a moment; answers the port, undefined when it is taken. */
async function listen(port: number): Promise<number | undefined> {
  const server = createServer();
  server.listen(port, '127.0.0.1');
  try {
    await once(server, 'listening');
  } catch {
    return undefined;
  }
  const { port: bound } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return bound;
}
