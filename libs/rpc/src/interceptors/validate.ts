import { create, type DescMessage, type DescMethod, type Message } from '@bufbuild/protobuf';
import { pathToString } from '@bufbuild/protobuf/reflect';
import { createValidator } from '@bufbuild/protovalidate';
import type { Interceptor } from '@connectrpc/connect';
import type { BoundService } from '../bound-service.ts';
import { invalidFields } from '../errors.ts';

/** The one validator of the process: each new one costs tens of milliseconds at its first use. */
const validator = createValidator();

/** Throws INVALID_ARGUMENT naming every field that breaks a rule of the message's proto. */
export function checkMessage(desc: DescMessage, message: Message): void {
  const result = validator.validate(desc, message);
  if (result.kind === 'valid') return;
  // An error is a rule that cannot be evaluated: a defect of the proto, not of the request.
  if (result.kind === 'error') throw new Error(`cannot validate ${desc.typeName}`, { cause: result.error });
  throw invalidFields(
    result.violations.map(({ field, message: description }) => ({ field: pathToString(field), description })),
  );
}

/**
 * Checks every request message against the rules its proto declares, each message of a stream when it is read. Methods in
 * `byHand` are left to their handlers: bulk streams, whose columns cost less to check there.
 */
export function validateInterceptor(byHand: readonly DescMethod[] = []): Interceptor {
  const skipped = new Set(byHand);
  return (next) => (request) => {
    if (skipped.has(request.method)) return next(request);
    if (request.stream) return next({ ...request, message: checked(request.method.input, request.message) });
    checkMessage(request.method.input, request.message);
    return next(request);
  };
}

async function* checked<T extends Message>(desc: DescMessage, messages: AsyncIterable<T>): AsyncGenerator<T> {
  for await (const message of messages) {
    checkMessage(desc, message);
    yield message;
  }
}

/** Compiles the rules of all requests, so that no caller waits for it. */
export function warmValidator(services: readonly BoundService[]): void {
  for (const { service } of services) {
    for (const { input } of service.methods) validator.validate(input, create(input));
  }
}
