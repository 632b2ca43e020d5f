import { fromBinary, fromJson, toBinary, toJson, type Message } from '@bufbuild/protobuf';
import { Client, credentials, Metadata, status, type ServiceError } from '@grpc/grpc-js';
import { codeName, detailsOfStatus } from '../answer.ts';
import type { Answer, Call, ProtocolClient } from '../case.ts';

/** What a Node program without Connect does: @grpc/grpc-js alone, messages from the generated descriptors. */
export function grpcJsClient(): ProtocolClient {
  const clients = new Map<string, Client>();
  const clientOf = (address: string): Client => {
    let client = clients.get(address);
    if (!client) clients.set(address, (client = new Client(address, credentials.createInsecure())));
    return client;
  };
  return {
    name: '@grpc/grpc-js',
    at: 'grpc',
    parallel: 8,
    cannot: () => undefined,
    call: (call) => send(clientOf(call.address), call),
    close: async () => clients.forEach((client) => client.close()),
  };
}

function send(client: Client, { method, requests, headers, timeoutMs }: Call): Promise<Answer> {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  const path = `/${method.parent.typeName}/${method.name}`;
  const responses: unknown[] = [];
  const options = timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs };
  const write = (message: Message) => Buffer.from(toBinary(method.input, message));
  const read = (bytes: Buffer) => fromBinary(method.output, bytes);
  const messages = requests.map((request) => fromJson(method.input, request));
  const keep = (message: Message) => void responses.push(toJson(method.output, message));

  return new Promise((resolve) => {
    const ok = () => resolve({ code: 'ok', message: '', details: [], responses });
    const failed = (error: ServiceError) => {
      const [details] = error.metadata.get('grpc-status-details-bin') as Buffer[];
      resolve({
        code: codeName(status[error.code]),
        message: error.details,
        details: details === undefined ? [] : detailsOfStatus(details),
        responses,
      });
    };
    const once = (error: ServiceError | null, message?: Message) => {
      if (error) return failed(error);
      keep(message!);
      ok();
    };
    if (method.methodKind === 'unary') {
      client.makeUnaryRequest(path, write, read, messages[0]!, metadata, options, once);
    } else if (method.methodKind === 'client_streaming') {
      const stream = client.makeClientStreamRequest(path, write, read, metadata, options, once);
      for (const message of messages) stream.write(message);
      stream.end();
    } else if (method.methodKind === 'server_streaming') {
      const stream = client.makeServerStreamRequest(path, write, read, messages[0]!, metadata, options);
      stream.on('data', keep).on('error', failed).on('end', ok);
    } else {
      const stream = client.makeBidiStreamRequest(path, write, read, metadata, options);
      stream.on('data', keep).on('error', failed).on('end', ok);
      for (const message of messages) stream.write(message);
      stream.end();
    }
  });
}
