import { connect } from 'node:net';
import { once } from 'node:events';
import { createGunzip } from 'node:zlib';
import { get } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { sleep } from '@mad/process';
import { AFTER, JOB, ORG, problemIn, seen, startEdge, WATCH, type Running } from './harness.ts';

let edge: Running;
let url: string;

beforeAll(async () => {
  edge = await startEdge();
  ({ url } = edge);
});

afterAll(() => edge?.close());

const EVENTS = { accept: 'text/event-stream' };
const ask = (path: string, headers: Record<string, string> = {}, signal?: AbortSignal) =>
  fetch(`${url}${path}`, { headers, signal: signal ?? null });

async function eventually(what: string, holds: () => boolean): Promise<void> {
  for (let i = 0; i < 200 && !holds(); i += 1) await sleep(20);
  if (!holds()) throw new Error(`${what}: never`);
}

/** The events of a text/event-stream, read as the WHATWG standard says. */
function eventsIn(text: string): { id?: string; event?: string; data?: string; comment?: true }[] {
  return text
    .split('\n\n')
    .filter((block) => block !== '')
    .map((block) =>
      Object.fromEntries(
        block.split('\n').map((line) => {
          const colon = line.indexOf(':');
          return colon === 0 ? ['comment', true] : [line.slice(0, colon), line.slice(colon + 1).trimStart()];
        }),
      ),
    );
}

describe('a file', () => {
  const file = (job: string, query = '') => ask(`/v1/organizations/${ORG}/jobs/${job}/poses.sdf${query}`);

  test('is its own content, under its own type', async () => {
    const response = await file(JOB);
    expect(response.headers.get('content-type')).toBe('chemical/x-mdl-sdfile');
    expect(await response.text()).toBe('one\ntwo\nthree\n');
  });

  test('that cannot be begun is answered with its status', async () => {
    const response = await file(ORG);
    expect(response.status).toBe(404);
    expect(await problemIn(response)).toMatchObject({ reason: 'RESOURCE_NOT_FOUND' });
  });

  test('that was cut is seen to be', async () => {
    const response = await file(JOB, '?filter=rank');
    expect(response.status).toBe(200);
    await expect(response.text()).rejects.toThrow('terminated');
  });
});

describe('NDJSON', () => {
  test('a stream is one JSON object a line', async () => {
    const response = await ask(WATCH);
    expect(response.headers.get('content-type')).toBe('application/x-ndjson');
    const lines = (await response.text()).trimEnd().split('\n');
    expect(lines.map((line) => (JSON.parse(line) as { result: object }).result)).toMatchObject([
      { events: [{ seqNo: '1' }], state: 'JOB_STATE_RUNNING' },
      { events: [{ seqNo: '2' }] },
      { events: [{ seqNo: '3' }] },
    ]);
  });

  test('a late error is the last line', async () => {
    const lines = (await (await ask(`${WATCH}?after_seq=${AFTER.error}`)).text()).trimEnd().split('\n');
    expect(lines).toHaveLength(2);
    expect(JSON.parse(lines[1]!)).toMatchObject({ error: { code: 'UNAVAILABLE', detail: 'tenant is gone' } });
  });

  test('an early error keeps its status', async () => {
    const response = await ask(`/v1/organizations/${ORG}/jobs/${ORG}:watch`);
    expect(response.status).toBe(404);
    expect(await problemIn(response)).toMatchObject({ reason: 'RESOURCE_NOT_FOUND' });
  });

  test('compressed, each message still leaves at once', async () => {
    const request = get(`${url}${WATCH}?after_seq=${AFTER.waits}`, { headers: { 'accept-encoding': 'gzip' } });
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    expect(response.headers['content-encoding']).toBe('gzip');
    const [line] = (await once(response.pipe(createGunzip()), 'data')) as [Buffer];
    expect(JSON.parse(line.toString())).toMatchObject({ result: { events: [{ seqNo: '10' }] } });
    request.destroy();
  });
});

describe('server-sent events', () => {
  test('each event carries its cursor, and the stream says that it ended', async () => {
    const response = await ask(WATCH, EVENTS);
    expect(response.headers.get('content-type')).toBe('text/event-stream');
    const events = eventsIn(await response.text());
    expect(events.map(({ id }) => id)).toEqual([undefined, '1', '2', '3', undefined]);
    expect(JSON.parse(events[2]!.data!)).toMatchObject({ events: [{ seqNo: '2' }] });
    expect(events.at(-1)).toEqual({ event: 'end', data: '{}' });
  });

  test('Last-Event-ID goes on behind the event, and wins over the address a browser repeats', async () => {
    const events = eventsIn(await (await ask(`${WATCH}?after_seq=1`, { ...EVENTS, 'last-event-id': '2' })).text());
    expect(events.filter(({ id }) => id !== undefined).map(({ id }) => id)).toEqual(['3']);
  });

  test('an id that is none is refused by name', async () => {
    const response = await ask(WATCH, { ...EVENTS, 'last-event-id': 'two' });
    expect(response.status).toBe(400);
    expect(await problemIn(response)).toMatchObject({ errors: [{ field: 'Last-Event-ID' }] });
  });

  test('a message without a cursor moves none', async () => {
    const events = eventsIn(await (await ask(`${WATCH}?after_seq=${AFTER.countersOnly}`, EVENTS)).text());
    expect(events[1]).not.toHaveProperty('id');
    expect(JSON.parse(events[1]!.data!)).toMatchObject({ events: [], counters: { requested: '5' } });
  });

  test('a stream that was cut says why', async () => {
    const events = eventsIn(await (await ask(`${WATCH}?after_seq=${AFTER.error}`, EVENTS)).text());
    expect(events.at(-1)).toMatchObject({ event: 'error' });
    expect(JSON.parse(events.at(-1)!.data!)).toMatchObject({ code: 'UNAVAILABLE', detail: 'tenant is gone' });
  });

  test('while there is nothing to tell, comments keep the connection', async () => {
    const client = new AbortController();
    const response = await ask(`${WATCH}?after_seq=${AFTER.waits}`, EVENTS, client.signal);
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    while (eventsIn(text).filter(({ comment }) => comment).length < 2) text += (await reader.read()).value ?? '';
    client.abort();
    expect(text).toContain('id: 10\n');
  });

  test('a stream that has nothing to tell yet opens all the same', async () => {
    const client = new AbortController();
    const response = await ask(`${WATCH}?after_seq=${AFTER.silent}`, EVENTS, client.signal);
    expect(response.status).toBe(200);
    const { value } = await response.body!.pipeThrough(new TextDecoderStream()).getReader().read();
    expect(value).toBe('retry: 2000\n\n');
    client.abort();
  });

  test('are never compressed', async () => {
    const response = await ask(WATCH, { ...EVENTS, 'accept-encoding': 'gzip, br' });
    expect(response.headers.get('content-encoding')).toBeNull();
  });
});

test('a client that goes away ends the call inside', async () => {
  const before = seen.aborted;
  const client = new AbortController();
  const response = await ask(`${WATCH}?after_seq=${AFTER.waits}`, {}, client.signal);
  await response.body!.getReader().read();
  client.abort();
  await eventually('the call ends', () => seen.aborted === before + 1);
});

test('a client that does not read stops the service, not fills the gateway', async () => {
  const socket = connect(edge.port, '127.0.0.1');
  await once(socket, 'connect');
  socket.pause();
  seen.flooded = 0;
  const start = process.memoryUsage().rss;
  socket.write(`GET ${WATCH}?after_seq=${AFTER.flood} HTTP/1.1\r\nhost: edge\r\n\r\n`);
  let last = -1;
  // Messages of 64 KiB are made until every buffer on the way is full; then none for half a second.
  await eventually('the flood begins', () => seen.flooded > 10);
  while (seen.flooded !== last) {
    last = seen.flooded;
    await sleep(500);
  }
  expect(last).toBeLessThan(800);
  expect(process.memoryUsage().rss - start).toBeLessThan(300 * 1024 * 1024);
  // Read on, and more is made.
  socket.resume();
  await eventually('the flood goes on', () => seen.flooded > last + 50);
  socket.destroy();
});
