import { Code, ConnectError } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { isMessageTooLarge, rpcError } from '../src/index.ts';
import { TOO_LARGE } from './echo.ts';
import { failure, startEcho, valid, ways, type Echo, type Way } from './harness.ts';

let echo: Echo;

beforeAll(async () => {
  echo = await startEcho();
});

afterAll(() => echo.server.close());

describe.each(Object.entries(ways))('%s', (_name, open) => {
  let way: Way;

  beforeAll(() => {
    way = open(echo.server);
  });

  afterAll(() => way.close());

  test('a message that is too large is told from a house that is full, on its way in and on its way out', async () => {
    const asked = await failure(
      way.client.unary({ ...valid, data: new Uint8Array(TOO_LARGE) }),
      Code.ResourceExhausted,
    );
    const answered = await failure(way.client.unary({ ...valid, mode: 'big' }), Code.ResourceExhausted);
    const busy = await failure(way.client.unary({ ...valid, mode: 'retry' }), Code.ResourceExhausted);
    expect([asked, answered, busy].map(isMessageTooLarge)).toEqual([true, true, false]);
  });
});

test('nothing else is a message that is too large, whatever it says', () => {
  const text = 'Received message larger than max (5 vs 4)';
  expect(isMessageTooLarge(new ConnectError(text, Code.ResourceExhausted))).toBe(true);
  expect(isMessageTooLarge(new ConnectError(text, Code.InvalidArgument))).toBe(false);
  expect(isMessageTooLarge(rpcError(Code.ResourceExhausted, 'QUOTA_EXCEEDED', text))).toBe(false);
  expect(isMessageTooLarge(new ConnectError('full', Code.ResourceExhausted))).toBe(false);
  expect(isMessageTooLarge(new Error(text))).toBe(false);
  expect(isMessageTooLarge(undefined)).toBe(false);
});
