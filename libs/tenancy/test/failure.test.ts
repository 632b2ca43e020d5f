import { Code } from '@connectrpc/connect';
import { describe, expect, test } from '@jest/globals';
import { ConnectTimedOut, failureOf, FAILURES, type Stage } from '../src/failure.ts';

function coded(code: string, message = ''): Error {
  return Object.assign(new Error(message), { code });
}

function codeOf(error: Error): string {
  return (error as Error & { code: string }).code;
}

const KINDS: [error: Error, connect: string | undefined, read: string | undefined, transact: string | undefined][] = [
  [coded('53300', 'sorry, too many clients already'), 'crowded', undefined, undefined],
  [coded('53300', 'remaining connection slots are reserved for roles with …'), 'crowded', undefined, undefined],
  [coded('53300', 'too many connections for role "x"'), 'limited', undefined, undefined],
  [coded('53300', 'too many connections for database "x"'), 'limited', undefined, undefined],
  [coded('57P03', 'the database system is starting up'), 'starting', 'starting', 'starting'],
  [coded('28P01', 'password authentication failed for user "x"'), 'login', undefined, undefined],
  [coded('28000', 'role "x" is not permitted to log in'), 'login', undefined, undefined],
  [coded('42501', 'permission denied for database "x"'), 'login', undefined, undefined],
  [coded('42501', 'permission denied for table x'), undefined, undefined, undefined],
  [coded('55000', 'database "x" is not currently accepting connections'), 'login', undefined, undefined],
  [coded('55000', 'currval of sequence "x" is not yet defined in this session'), undefined, undefined, undefined],
  [coded('3D000', 'database "x" does not exist'), 'database_gone', undefined, undefined],
  [coded('57P01', 'terminating connection due to administrator command'), 'ended', 'ended', 'ended'],
  [coded('57P02', 'terminating connection because of crash of another server process'), 'ended', 'ended', 'ended'],
  [coded('25006', 'cannot execute INSERT in a read-only transaction'), 'read_only', undefined, 'read_only'],
  [
    coded('0A000', 'cannot set transaction read-write mode during recovery'),
    ...(['read_only', undefined, 'read_only'] as const),
  ],
  [coded('0A000', 'cached plan must not change result type'), undefined, undefined, undefined],
  [coded('ECONNREFUSED'), 'network', 'network', 'network'],
  [coded('ECONNRESET'), 'network', 'network', 'network'],
  [coded('08006'), 'network', 'network', 'network'],
  [new Error('timeout expired'), 'network', 'network', 'network'],
  [new Error('timeout exceeded when trying to connect'), 'network', 'network', 'network'],
  [new Error('Connection terminated unexpectedly'), 'network', 'network', 'network'],
  [new ConnectTimedOut(5), 'network', 'network', 'network'],
  [coded('DEPTH_ZERO_SELF_SIGNED_CERT'), 'untrusted', undefined, undefined],
  [new Error('The server does not support SSL connections'), 'untrusted', undefined, undefined],
  // Statements' own errors say nothing about the way to the database.
  [coded('23505'), undefined, undefined, undefined],
  [coded('57014', 'canceling statement due to statement timeout'), undefined, undefined, undefined],
  [coded('40001'), undefined, undefined, undefined],
  [new RangeError('no'), undefined, undefined, undefined],
];

describe('an error', () => {
  test.each(KINDS.map(([error, ...kinds]) => [error.message || codeOf(error), error, kinds] as const))(
    '"%s" is told apart by where it happened',
    (_name, error, kinds) => {
      const stages: Stage[] = ['connect', 'read', 'transact'];
      expect(stages.map((stage) => failureOf(error, stage)?.kind)).toEqual(kinds);
    },
  );

  test('of TypeORM is the driver’s inside it', () => {
    const wrapped = Object.assign(new Error('QueryFailed'), { driverError: coded('57P01') });
    expect(failureOf(wrapped, 'read')?.kind).toBe('ended');
  });

  test('that is none has no failure', () => {
    expect(failureOf('57P01', 'connect')).toBeUndefined();
  });
});

test('only what the server itself does counts against it', () => {
  const counting = Object.entries(FAILURES).filter(([, { breaker }]) => breaker);
  expect(counting.map(([kind]) => kind).toSorted()).toEqual(['crowded', 'network', 'starting']);
});

test('what is repeated at once was never the server’s overload', () => {
  for (const { route, code, breaker } of Object.values(FAILURES)) {
    if (route === 'repeat') expect({ code, breaker }).toEqual({ code: Code.Unavailable, breaker: false });
  }
});
