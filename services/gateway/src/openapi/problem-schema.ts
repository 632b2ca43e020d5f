import type { JsonObject } from '@bufbuild/protobuf';

/** The schema of every error answer, as `rest/problem.ts` makes them (RFC 9457). */
export const PROBLEM_SCHEMA: JsonObject = {
  type: 'object',
  description: 'What went wrong, as RFC 9457 has it. Programs branch on `reason` where it is given, else on `code`.',
  required: ['type', 'title', 'status', 'detail', 'instance', 'code'],
  properties: {
    type: { type: 'string', description: "A URN of the kind of problem, e.g. 'urn:mad:problem:not-found'." },
    title: { type: 'string', description: 'The kind of problem in words.' },
    status: { type: 'integer', minimum: 400, maximum: 599, description: 'The HTTP status.' },
    detail: { type: 'string', description: 'What went wrong this time.' },
    instance: { type: 'string', description: 'The path that was asked for.' },
    code: { type: 'string', description: "The gRPC code, e.g. 'NOT_FOUND'." },
    reason: { type: 'string', pattern: '^[A-Z][A-Z0-9_]*$', description: "Why, for programs, e.g. 'QUOTA_EXCEEDED'." },
    errors: {
      type: 'array',
      description: 'The fields at fault.',
      items: {
        type: 'object',
        required: ['field', 'detail'],
        properties: {
          field: { type: 'string', description: "The field's path as the contracts write it, e.g. 'page_size'." },
          detail: { type: 'string', description: 'What it should be.' },
        },
      },
    },
    details: {
      type: 'array',
      description: 'All details (google.rpc.*) as protobuf JSON, each with its `@type`.',
      items: { type: 'object', required: ['@type'], properties: { '@type': { type: 'string' } } },
    },
    retryAfter: { type: 'integer', minimum: 1, description: 'Seconds to wait before trying again.' },
  },
};

/** What each error status means here. */
const MEANING: Record<number, string> = {
  400: 'The request is malformed, or cannot be carried out in the present state; `errors` names the fields.',
  401: 'No token, or one that is not valid.',
  403: 'The token lacks the permission.',
  404: 'No such resource, or none in your organization.',
  409: 'The resource exists, or was changed by somebody else.',
  413: 'The body is over the limit.',
  415: 'The body is not JSON.',
  429: 'Too many requests, or over a quota; `Retry-After` says when to try again.',
  500: 'A defect of the system; `x-trace-id` finds it in the log.',
  503: 'A part of the system is away; try again.',
  504: 'The request took too long.',
};

/** The shared error answers, by status. */
export const PROBLEM_RESPONSES: JsonObject = Object.fromEntries(
  Object.entries(MEANING).map(([status, description]) => [
    `Problem${status}`,
    {
      description,
      ...((status === '429' || status === '503') && {
        headers: { 'Retry-After': { description: 'Seconds to wait.', schema: { type: 'integer', minimum: 1 } } },
      }),
      content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } },
    },
  ]),
);

/** References to the error answers of the given statuses. */
export function problemResponses(statuses: readonly number[]): JsonObject {
  return Object.fromEntries(
    statuses.map((status) => [String(status), { $ref: `#/components/responses/Problem${status}` }]),
  );
}
