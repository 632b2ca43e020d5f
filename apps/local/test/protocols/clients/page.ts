// The script of the browser's page, bundled by browser.ts: what a console or a partner's site would do with connect-web.
import { fromJson, toJson, type DescService, type JsonObject, type JsonValue } from '@bufbuild/protobuf';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createConnectTransport, createGrpcWebTransport } from '@connectrpc/connect-web';
import * as catalog from '@mad/proto/catalog';
import * as health from '@mad/proto/health';
import * as identity from '@mad/proto/identity';
import * as provisioner from '@mad/proto/provisioner';
import * as results from '@mad/proto/results';
import * as tenancy from '@mad/proto/tenancy';

/** A call as the page is given it. */
export interface PageCall {
  protocol: 'connect' | 'grpc-web';
  service: string;
  method: string;
  request: JsonObject;
  headers: Record<string, string>;
  timeoutMs?: number;
}

/** What the page answers. */
export interface PageAnswer {
  code: string;
  message: string;
  details: { type: string; value: string }[];
  responses: JsonValue[];
  traceId?: string;
}

const services = new Map<string, DescService>();
for (const contract of [catalog, health, identity, provisioner, results, tenancy]) {
  for (const one of Object.values(contract) as { kind?: string }[]) {
    if (one.kind === 'service') services.set((one as DescService).typeName, one as DescService);
  }
}
const { origin } = (globalThis as unknown as { location: { origin: string } }).location;
const transports = {
  connect: createConnectTransport({ baseUrl: origin }),
  'grpc-web': createGrpcWebTransport({ baseUrl: origin }),
};

async function call({ protocol, service: name, method, request, headers, timeoutMs }: PageCall): Promise<PageAnswer> {
  const service = services.get(name)!;
  const desc = service.methods.find((one) => one.name === method)!;
  const client = createClient(service, transports[protocol]) as unknown as Record<
    string,
    (request: unknown, options: object) => unknown
  >;
  const responses: JsonValue[] = [];
  let traceId: string | null = null;
  const onHeader = (header: Headers) => {
    traceId = header.get('x-trace-id');
  };
  try {
    const said = client[desc.localName]!(fromJson(desc.input, request), { headers, timeoutMs, onHeader });
    const messages = desc.methodKind === 'unary' ? [await said] : (said as AsyncIterable<unknown>);
    for await (const message of messages) responses.push(toJson(desc.output, message as never));
    return { code: 'Ok', message: '', details: [], responses, traceId: traceId ?? undefined };
  } catch (thrown) {
    const error = ConnectError.from(thrown);
    const details = error.details.flatMap((detail) =>
      'type' in detail ? [{ type: detail.type, value: btoa(String.fromCharCode(...detail.value)) }] : [],
    );
    traceId ??= error.metadata.get('x-trace-id');
    return { code: Code[error.code], message: error.rawMessage, details, responses, traceId: traceId ?? undefined };
  }
}

Object.assign(globalThis, { call });
