import { Code, ConnectError } from '@connectrpc/connect';
import { expect, test } from '@jest/globals';
import { mayPass } from '../src/domain/operation-cause.ts';
import { causeOf } from '../src/operations/cause.ts';

const coded = (code: string, message = ''): Error => Object.assign(new Error(message), { code });

test.each<[string, unknown, string]>([
  ['a server that starts', coded('57P03', 'the database system is starting up'), 'away'],
  ['a server that stops', coded('57P03', 'the database system is shutting down'), 'away'],
  ['a server that recovers', coded('57P03', 'the database system is in recovery mode'), 'away'],
  ['a server that says so in another language', coded('57P03', 'das Datenbanksystem startet'), 'away'],
  ['a server without a connection left', coded('53300', 'sorry, too many clients already'), 'away'],
  ['a session that was ended', coded('57P01', 'terminating connection due to administrator command'), 'away'],
  ['a session of ours that sat in a transaction', coded('25P03', 'terminating connection due to idle'), 'away'],
  ['a crash of another session', coded('57P02', 'terminating connection because of crash of another'), 'away'],
  ['a database that lets nobody in', coded('55000', 'database "x" is not currently accepting connections'), 'away'],
  ['a server that was demoted', coded('25006', 'cannot execute ALTER TABLE in a read-only transaction'), 'away'],
  ['a port that is closed', coded('ECONNREFUSED', 'connect ECONNREFUSED 127.0.0.1:5432'), 'away'],
  ['a name that is unknown', coded('ENOTFOUND', 'getaddrinfo ENOTFOUND db'), 'away'],
  ['a name server that is away', coded('EAI_AGAIN', 'getaddrinfo EAI_AGAIN db'), 'away'],
  ['a network that is away', coded('ENETUNREACH', 'connect ENETUNREACH'), 'away'],
  ['a pool that waits in vain', new Error('timeout exceeded when trying to connect'), 'away'],
  ['an answer that does not come', new Error('timeout expired'), 'away'],
  ['an owner that is away', new ConnectError('no connection', Code.Unavailable), 'away'],
  ['an owner that does not answer', new ConnectError('in time', Code.DeadlineExceeded), 'away'],
  ['a lock that is held', coded('55P03', 'canceling statement due to lock timeout'), 'held'],
  ['a deadlock', coded('40P01', 'deadlock detected'), 'held'],
  ['a lock the owner met', new ConnectError('migration A1 failed: lock timeout', Code.Aborted), 'held'],
  ['what that was thrown for', new Error('and the way back failed', { cause: coded('40P01') }), 'held'],
  ['a migration that fails', new ConnectError('check constraint "c" is violated', Code.FailedPrecondition), ''],
  ['a statement that fails', coded('23514', 'check constraint "c" is violated by some row'), ''],
  ['a text that only reads like one', new Error('the comment says: ECONNREFUSED, lock timeout'), ''],
  ['nothing', undefined, ''],
])('%s is told by its code', (_what, error, cause) => {
  expect(causeOf(error)).toBe(cause);
  expect(mayPass(causeOf(error))).toBe(cause !== '');
});
