import type { DescMethod, DescService, JsonObject } from '@bufbuild/protobuf';
import type { World } from './world.ts';

/** Who calls: nobody, somebody whose token is none, people, the platform's administrator, or a service by its name. */
export type As =
  | 'nobody'
  | 'forger'
  | 'admin'
  | 'user'
  | 'platform'
  | 'identity'
  | 'catalog'
  | 'results'
  | 'provisioner'
  | 'gateway'
  | 'worker';

/** What a refused call must carry, as far as it is given. */
export interface ExpectedError {
  /** gRPC code by name, e.g. `not_found`. */
  code: string;
  message?: string;
  /** ErrorInfo. */
  reason?: string;
  metadata?: Record<string, string>;
  /** BadRequest: the fields at fault. */
  fields?: string[];
}

/** One call and what every client must see. */
export interface Case {
  name: string;
  service: DescService;
  /** The method's name in the proto. */
  method: string;
  as: As;
  /** Protobuf JSON; several messages where requests are a stream. */
  request?: (world: World) => object | object[];
  timeoutMs?: number;
  /** Parts of the responses, in order; a stream may go on. */
  responses?: (world: World) => object[];
  error?: ExpectedError;
  /** True where two calls need not answer the same: secrets, counts that grow. */
  changes?: boolean;
}

/** What a client saw, in the words all of them share. */
export interface Answer {
  /** gRPC code by name, `ok` after success. */
  code: string;
  message: string;
  /** Error details as protobuf JSON with `@type`. */
  details: JsonObject[];
  /** Protobuf JSON. */
  responses: unknown[];
  /** The response's `x-trace-id`, where the edge gave one. */
  traceId?: string;
}

/** One client program speaking one protocol. */
export interface ProtocolClient {
  name: string;
  /** Which listener it calls: a service's gRPC or Connect port, or the gateway. */
  at: 'grpc' | 'connect' | 'gateway';
  /** Calls at once; a process for each call costs a core while it starts. */
  parallel: number;
  /** Why this client cannot make a call, undefined where it can: the one place where gaps are declared. */
  cannot(call: Call): string | undefined;
  call(call: Call): Promise<Answer>;
  close(): Promise<void>;
}

/** A case as one client makes it. */
export interface Call {
  name: string;
  method: DescMethod;
  /** Where the listener is, `host:port`. */
  address: string;
  /** Request messages as protobuf JSON. */
  requests: JsonObject[];
  headers: Record<string, string>;
  timeoutMs: number | undefined;
}
