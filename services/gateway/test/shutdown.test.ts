import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createConnectTransport, createGrpcWebTransport } from '@connectrpc/connect-node';
import { generateSigningKey } from '@mad/auth';
import { sleep } from '@mad/process';
import { JobRunService } from '@mad/proto/results';
import { reasonOf, type RpcServer } from '@mad/rpc';
import { AFTER, JOB, ORG, seen, SLOW, startNeighbours, WATCH } from './harness.ts';

// The gateway as a process of its own, ended as an operator ends it.
const MAIN = fileURLToPath(new URL('../src/main.ts', import.meta.url));
const DRAIN_MS = 3_000;

let neighbours: RpcServer;
beforeAll(async () => {
  neighbours = await startNeighbours();
});
afterAll(() => neighbours?.close());

interface Process {
  url: string;
  port: number;
  child: ChildProcess;
  /** Resolves with the exit code. */
  exited: Promise<number | null>;
}
const running: ChildProcess[] = [];
afterEach(() => {
  for (const child of running.splice(0)) child.kill('SIGKILL');
});

async function startProcess(settings: Record<string, string> = {}): Promise<Process> {
  const address = `127.0.0.1:${neighbours.port}`;
  const { privateJwk } = await generateSigningKey();
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', MAIN], {
    env: {
      PATH: process.env.PATH,
      GATEWAY_PORT: '0',
      GATEWAY_SERVICE_KEY: JSON.stringify(privateJwk),
      GATEWAY_DRAIN_MS: String(DRAIN_MS),
      GATEWAY_FINISH_MS: '5000',
      IDENTITY_ADDRESS: address,
      CATALOG_ADDRESS: address,
      RESULTS_ADDRESS: address,
      PROVISIONER_ADDRESS: address,
      ...settings,
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  running.push(child);
  const exited = once(child, 'exit').then(([code]) => code as number | null);
  let output = '';
  for await (const chunk of child.stdout.iterator({ destroyOnReturn: false })) {
    output += String(chunk);
    if (output.includes('"msg":"started"')) break;
  }
  child.stdout.resume();
  const port = Number(/"port":(\d+)/.exec(output)![1]);
  return { url: `http://127.0.0.1:${port}`, port, child, exited };
}

/** Reads a stream's first message, and gives the rest once it ended. */
async function openStream(url: string, accept: string): Promise<{ rest: Promise<string> }> {
  const response = await fetch(`${url}${WATCH}?after_seq=${AFTER.waits}`, { headers: { accept } });
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  while (!text.includes('"seqNo":"10"')) text += (await reader.read()).value;
  const rest = (async () => {
    for (let next = await reader.read(); !next.done; next = await reader.read()) text += next.value;
    return text;
  })();
  // In an object, so that awaiting the opening does not await the end.
  return { rest };
}

test('SIGTERM: not ready first; then streams end with where to go on, and what is in flight is finished', async () => {
  const { url, port, child, exited } = await startProcess();
  const lines = await openStream(url, 'application/x-ndjson');
  const events = await openStream(url, 'text/event-stream');
  const client = createClient(JobRunService, createConnectTransport({ baseUrl: url, httpVersion: '1.1' }));
  const web = createClient(JobRunService, createGrpcWebTransport({ baseUrl: url, httpVersion: '1.1' }));
  const ends = [client, web].map(async (one) => {
    try {
      for await (const _message of one.watchJob({ orgId: ORG, jobId: JOB, afterSeq: AFTER.waits }));
    } catch (error) {
      return error;
    }
    return undefined;
  });
  await sleep(200);
  seen.slowMs = DRAIN_MS + 1_000;
  const slow = fetch(`${url}/v1/organizations/${ORG}/jobs/${SLOW}`);
  const slowCall = fetch(`${url}/mad.catalog.v1.JobService/GetJob`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ orgId: ORG, jobId: SLOW }),
  });
  await sleep(100);

  child.kill('SIGTERM');
  await sleep(150);
  const ready = await fetch(`${url}/ready`);
  expect(ready.status).toBe(503);
  expect(await ready.json()).toMatchObject({ status: 'not_ready', draining: true });
  // It still serves: the load balancer has not looked yet.
  expect((await fetch(`${url}/v1/organizations/${ORG}`)).status).toBe(200);

  const cut = { code: 'UNAVAILABLE', reason: 'SHUTTING_DOWN', retryAfter: 1 };
  expect(JSON.parse((await lines.rest).trimEnd().split('\n').at(-1)!)).toMatchObject({ error: cut });
  const last = (await events.rest).trimEnd().split('\n\n').at(-1)!;
  expect(last).toMatch(/^event: error\ndata: /);
  expect(JSON.parse(last.slice(last.indexOf('{')))).toMatchObject(cut);
  expect(await events.rest).toContain('id: 10\n');
  for (const end of await Promise.all(ends)) {
    expect(end).toBeInstanceOf(ConnectError);
    expect(end).toMatchObject({ code: Code.Unavailable });
    expect(reasonOf(end)).toBe('SHUTTING_DOWN');
  }
  // No new connection, while the calls in flight go on to their end.
  const [refused] = (await once(connect(port, '127.0.0.1'), 'error')) as [NodeJS.ErrnoException];
  expect(refused.code).toBe('ECONNREFUSED');
  expect((await slow).status).toBe(200);
  expect((await slowCall).status).toBe(200);
  expect(await exited).toBe(0);
});

test('what does not finish in time is told so, and nothing holds the process', async () => {
  const { url, port, child, exited } = await startProcess({ GATEWAY_DRAIN_MS: '0', GATEWAY_FINISH_MS: '300' });
  seen.slowMs = 20_000;
  const slow = fetch(`${url}/v1/organizations/${ORG}/jobs/${SLOW}`);
  const half = connect(port, '127.0.0.1');
  half.on('error', () => undefined);
  half.write('POST /v1/sessions:login HTTP/1.1\r\nhost: edge\r\ncontent-length: 100\r\n\r\n{');
  await sleep(200);
  const start = Date.now();
  child.kill('SIGTERM');
  const response = await slow;
  expect(response.status).toBe(503);
  expect(await response.json()).toMatchObject({ code: 'UNAVAILABLE', reason: 'SHUTTING_DOWN' });
  expect(await exited).toBe(0);
  expect(Date.now() - start).toBeLessThan(5_000);
  half.destroy();
});
