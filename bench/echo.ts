import { create } from '@bufbuild/protobuf';
import { createClient } from '@connectrpc/connect';
import { Client, credentials } from '@grpc/grpc-js';
import { EchoService, UnaryRequestSchema, type UnaryResponse } from '@mad/proto/echo';
import { grpcTransport } from '@mad/rpc';
import type { Interceptor } from '@connectrpc/connect';
import { decode, encode, pathOf } from '../libs/rpc/src/codec.ts';
import { startProgram } from './child.ts';
import { interleave, ratePerSecond } from './measure.ts';
import { scaled, type Bench, type Line, type Target } from './row.ts';

/** What an echo server is: the floor, ours without interceptors, ours as services are served. */
export type EchoKind = 'raw' | 'bare' | 'full';

/** What `programs/echo-server.ts` says when it serves. */
export interface EchoReady {
  port: number;
}

/** Enough to hide the round trip and to fill both cores, as a service under load is. */
const IN_FLIGHT = 16;

/** The message of both sides: six fields with rules, as most of our requests have, about 150 bytes. */
const message = create(UnaryRequestSchema, {
  id: '0192d0c2-7f6b-7c3e-9d3e-2f6f5d0c7a11',
  slug: 'ligand_screening',
  count: 1_000,
  value: 7.25,
  mode: '',
  tags: ['docking', 'priority'],
  data: new Uint8Array(64),
});

const { unary } = EchoService.method;

function rawClient(port: number): { call: () => Promise<UnaryResponse>; close: () => void } {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
  const call = (): Promise<UnaryResponse> =>
    new Promise((resolve, reject) => {
      client.makeUnaryRequest(
        pathOf(unary),
        (request: typeof message) => encode(unary.input, request),
        (bytes) => decode(unary.output, bytes),
        message,
        (error, response) => (error ? reject(error) : resolve(response!)),
      );
    });
  return { call, close: () => client.close() };
}

/** Calls per second of ours against @grpc/grpc-js alone: same message, same codec, each server in a process of its own. */
export async function measureEcho(
  bench: Bench,
  line: { name: string; kind: EchoKind; target: Target; interceptors: Interceptor[]; args?: string[] },
): Promise<Line[]> {
  const raw = await startProgram<EchoReady>('echo-server', ['raw']);
  const own = await startProgram<EchoReady>('echo-server', [line.kind, ...(line.args ?? [])]);
  const floor = rawClient(raw.ready.port);
  const transport = grpcTransport(`127.0.0.1:${own.ready.port}`, { interceptors: line.interceptors });
  const ours = createClient(EchoService, transport);
  try {
    const load = { inFlight: IN_FLIGHT, durationMs: scaled(bench, 500, 200) };
    const samples = await interleave(scaled(bench, 21, 2), {
      ours: () => ratePerSecond(load, () => ours.unary(message)),
      floor: () => ratePerSecond(load, floor.call),
    });
    return [{ name: line.name, unit: 'calls/s', target: line.target, ...samples, notes: { in_flight: IN_FLIGHT } }];
  } finally {
    transport.close();
    floor.close();
    await Promise.all([own.stop(), raw.stop()]);
  }
}
