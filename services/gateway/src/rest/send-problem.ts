import type { Registry } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import type { Logger } from '@mad/process';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { EdgeRefusal, problemOf } from './problem.ts';

/** What refusing takes. */
export interface Refusals {
  /** Decodes the details of errors. */
  registry: Registry;
  logger: Logger;
  /** Named where a body is over it. */
  bodyLimitBytes: number;
}

/** Answers an error as problem JSON; an error that is no refusal is a bug, logged with its cause. */
export function sendProblem(error: unknown, request: FastifyRequest, reply: FastifyReply, refusals: Refusals) {
  const { registry, logger } = refusals;
  const problem = problemOf(named(error, refusals), request.url.split('?')[0]!, registry);
  if (!(error instanceof ConnectError) && problem.status === 500) logger.error({ error }, 'request failed');
  if (problem.status === 401) reply.header('www-authenticate', 'Bearer');
  if (problem.retryAfter !== undefined) reply.header('retry-after', String(problem.retryAfter));
  return reply.code(problem.status).type('application/problem+json').send(JSON.stringify(problem));
}

/** Fastify says that a limit was passed; we say which. */
function named(error: unknown, { bodyLimitBytes }: Refusals): unknown {
  if ((error as { code?: string } | undefined)?.code !== 'FST_ERR_CTP_BODY_TOO_LARGE') return error;
  return new EdgeRefusal(`the body is over the limit of ${bodyLimitBytes} bytes`, Code.ResourceExhausted, 413);
}
