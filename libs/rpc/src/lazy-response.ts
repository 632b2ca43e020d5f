import type { DescMessage, DescMethodUnary, DescService, MessageShape } from '@bufbuild/protobuf';
import type { UnaryResponse } from '@connectrpc/connect';
import type { Metadata } from '@grpc/grpc-js';
import { metadataToHeaders } from './metadata.ts';

/** A unary response whose Headers are made when somebody reads them. */
export class LazyUnaryResponse<I extends DescMessage, O extends DescMessage> implements UnaryResponse<I, O> {
  readonly stream = false;
  readonly method: DescMethodUnary<I, O>;
  readonly message: MessageShape<O>;
  #header: Metadata | Headers | undefined;
  #trailer: Metadata | Headers;

  constructor(
    method: DescMethodUnary<I, O>,
    message: MessageShape<O>,
    header: Metadata | undefined,
    trailer: Metadata,
  ) {
    this.method = method;
    this.message = message;
    this.#header = header;
    this.#trailer = trailer;
  }

  get service(): DescService {
    return this.method.parent;
  }

  get header(): Headers {
    if (!(this.#header instanceof Headers)) this.#header = metadataToHeaders(this.#header);
    return this.#header;
  }

  get trailer(): Headers {
    if (!(this.#trailer instanceof Headers)) this.#trailer = metadataToHeaders(this.#trailer);
    return this.#trailer;
  }
}
