import { expect } from '@jest/globals';
import { Health } from '@mad/proto/health';
import { ServerReflectionV1, ServerReflectionV1Alpha } from '@mad/proto/reflection';
import type { Case } from '../case.ts';

/** Exact in every protocol: percent signs, what URLs reserve, quotes, letters beyond ASCII and beyond 16 bits. */
const DIFFICULT = 'пайплайн %3A %2C 100% "β"; a/b?c=d&e+f 🧪';
const reflection = { fileContainingSymbol: 'mad.catalog.v1.JobService' };
const described = () => [{ fileDescriptorResponse: { fileDescriptorProto: expect.any(Array) } }];

/** What operators' tools ask every service. */
export const toolCases: Case[] = [
  { name: 'health', service: Health, method: 'Check', as: 'nobody', responses: () => [{ status: 'SERVING' }] },
  {
    name: 'health, watched until the deadline',
    service: Health,
    method: 'Watch',
    as: 'nobody',
    timeoutMs: 2000,
    responses: () => [{ status: 'SERVING' }],
    error: { code: 'deadline_exceeded' },
  },
  {
    name: 'an error text with everything that is escaped somewhere',
    service: Health,
    method: 'Check',
    as: 'nobody',
    request: () => ({ service: DIFFICULT }),
    error: { code: 'not_found', message: `no service ${JSON.stringify(DIFFICULT)} here` },
  },
  {
    name: 'reflection',
    service: ServerReflectionV1,
    method: 'ServerReflectionInfo',
    as: 'nobody',
    request: () => [reflection],
    responses: described,
  },
  {
    name: 'reflection, its older version',
    service: ServerReflectionV1Alpha,
    method: 'ServerReflectionInfo',
    as: 'nobody',
    request: () => [reflection],
    responses: described,
  },
];
