import { createServer } from 'node:http';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import {
  beginSpan,
  continueTrace,
  createLogger,
  currentSpan,
  inSpan,
  messagesInSpan,
  openTracing,
  outsideTraces,
  readTracingConfig,
  runSpan,
  sleep,
  spanned,
  traceparentOf,
  type FinishedSpan,
  type SpanLine,
  type Tracer,
} from '../src/index.ts';
import { spanFile } from '../src/tracing/span-file.ts';

const folder = mkdtempSync(join(tmpdir(), 'mad-tracing-'));
afterAll(() => rmSync(folder, { recursive: true }));
const quiet = createLogger('test', { level: 'silent' });

function recorder(keep = 1): { spans: FinishedSpan[]; tracer: Tracer } {
  const spans: FinishedSpan[] = [];
  const sink = { write: (span: FinishedSpan) => void spans.push(span), close: async () => undefined };
  return { spans, tracer: { service: 'sample', keep, sink } };
}

const PARENT = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';

describe('spans', () => {
  test('continue the trace they are given, and those begun inside are below them', async () => {
    const { spans, tracer } = recorder();
    const outer = beginSpan(tracer, PARENT, 'outer', 'server', { attributes: { a: 1 } });
    await runSpan(outer, () => spanned('inner', 'internal', { b: 'x' }, () => sleep(5)));
    const [inner, first] = spans;
    expect(first).toMatchObject({
      service: 'sample',
      traceId: '4bf92f3577b34da6a3ce929d0e0e4736',
      parentSpanId: '00f067aa0ba902b7',
      name: 'outer',
      kind: 'server',
      attributes: { a: 1 },
    });
    expect(inner).toMatchObject({ traceId: first!.traceId, parentSpanId: first!.spanId, name: 'inner' });
    expect(inner!.durationMs).toBeGreaterThanOrEqual(4);
    expect(inner!.startMs).toBeGreaterThanOrEqual(first!.startMs);
  });

  test('keep why they failed, and the failure is thrown on', async () => {
    const { spans, tracer } = recorder();
    const failing = runSpan(beginSpan(tracer, PARENT, 'x', 'internal'), () => Promise.reject(new Error('no disk')));
    await expect(failing).rejects.toThrow('no disk');
    expect(spans).toMatchObject([{ error: 'no disk' }]);
  });

  test('of a trace that is not sampled leave nothing, and the trace still goes on', async () => {
    const { spans, tracer } = recorder();
    const span = beginSpan(tracer, PARENT.replace(/01$/, '00'), 'x', 'server');
    await runSpan(span, () => spanned('y', 'internal', undefined, async () => expect(currentSpan()).toBe(span)));
    expect(spans).toEqual([]);
    expect(traceparentOf(span)).toMatch(/^00-4bf92f3577b34da6a3ce929d0e0e4736-[0-9a-f]{16}-00$/);
  });

  test('a fraction of new traces is sampled, and each whole', () => {
    const sampled = Array.from({ length: 2_000 }, () => continueTrace(undefined, 0.25).sampled);
    const share = sampled.filter(Boolean).length / sampled.length;
    expect(share).toBeGreaterThan(0.18);
    expect(share).toBeLessThan(0.32);
    expect(continueTrace(undefined, 0).sampled).toBe(false);
  });

  test('a stream is pulled inside its span, by whomever', async () => {
    const { tracer } = recorder();
    const span = beginSpan(tracer, PARENT, 'stream', 'server');
    const seen: unknown[] = [];
    const source = (async function* () {
      for (let i = 0; i < 3; i += 1) {
        seen.push(currentSpan());
        yield i;
      }
    })();
    const messages: number[] = [];
    for await (const message of messagesInSpan(span, source)) messages.push(message);
    expect(messages).toEqual([0, 1, 2]);
    expect(seen).toEqual([span, span, span]);
    expect(currentSpan()).toBeUndefined();
  });

  test('what lives longer than a request is in no trace', () => {
    const span = beginSpan(recorder().tracer, PARENT, 'x', 'server');
    expect(inSpan(span, () => outsideTraces(() => currentSpan()))).toBeUndefined();
  });

  test('below one there are a thousand at most', async () => {
    const { spans, tracer } = recorder();
    await runSpan(beginSpan(tracer, PARENT, 'x', 'server'), async () => {
      for (let i = 0; i < 1_200; i += 1) await spanned('poll', 'internal', undefined, async () => undefined);
    });
    expect(spans).toHaveLength(1_001);
  });
});

test('a line logged inside a trace names it', () => {
  const lines: string[] = [];
  const log = createLogger('sample', { destination: { write: (line: string) => void lines.push(line) } });
  inSpan(beginSpan(undefined, PARENT, 'x', 'server'), () => log.info('inside'));
  log.info('outside');
  const [inside, outside] = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(inside).toMatchObject({
    time: expect.any(String),
    level: 'info',
    service: 'sample',
    msg: 'inside',
    trace_id: '4bf92f3577b34da6a3ce929d0e0e4736',
  });
  expect(outside).not.toHaveProperty('trace_id');
});

describe('the file of spans', () => {
  test('has one JSON line for each, private, whole after close', async () => {
    const path = join(folder, 'new', 'spans.jsonl');
    const tracing = openTracing({ file: path, keep: 1 }, quiet);
    const tracer = await tracing.tracer('sample');
    await runSpan(beginSpan(tracer, PARENT, 'x', 'server', { attributes: { org_id: 'o' } }), () => sleep(1));
    await tracing.close();
    const lines = readFileSync(path, 'utf8').trimEnd().split('\n');
    expect(lines.map((line) => JSON.parse(line) as SpanLine)).toEqual([
      {
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/),
        service: 'sample',
        trace_id: '4bf92f3577b34da6a3ce929d0e0e4736',
        span_id: expect.stringMatching(/^[0-9a-f]{16}$/),
        parent_span_id: '00f067aa0ba902b7',
        name: 'x',
        kind: 'server',
        ms: expect.any(Number),
        attributes: { org_id: 'o' },
      },
    ]);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test('is bounded: one file and the one before', async () => {
    const path = join(folder, 'bounded.jsonl');
    for (let round = 0; round < 5; round += 1) {
      const sink = spanFile(path, { maxBytes: 10_000, onError: (error) => expect(error).toBeUndefined() });
      const tracer = { service: 'sample', keep: 1, sink };
      for (let i = 0; i < 30; i += 1) beginSpan(tracer, undefined, `span ${round}.${i}`, 'internal').end();
      await sink.close();
    }
    expect(statSync(path).size).toBeLessThanOrEqual(10_000);
    expect(statSync(`${path}.1`).size).toBeLessThanOrEqual(10_000);
    expect(readFileSync(path, 'utf8')).toContain('span 4.29');
  });

  test('that cannot be written costs a warning, once', async () => {
    const errors: unknown[] = [];
    const sink = spanFile(join(folder, 'bounded.jsonl', 'no', 'folder'), { onError: (error) => errors.push(error) });
    for (let i = 0; i < 3; i += 1) {
      beginSpan({ service: 's', keep: 1, sink }, undefined, 'x', 'internal').end();
      await sink.close();
    }
    expect(errors).toHaveLength(1);
  });
});

test('spans go to a collector by OTLP over HTTP', async () => {
  const bodies: { path: string; body: string }[] = [];
  const collector = createServer((request, response) => {
    let body = '';
    request.on('data', (data: Buffer) => (body += data.toString()));
    request.on('end', () => {
      bodies.push({ path: request.url!, body });
      response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
    });
  });
  await new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', resolve));
  const { port } = collector.address() as AddressInfo;
  const tracing = openTracing({ otlpEndpoint: `http://127.0.0.1:${port}/`, keep: 1 }, quiet);
  const tracer = await tracing.tracer('sample');
  await runSpan(beginSpan(tracer, PARENT, 'GET', 'server', { attributes: { code: 'ok', n: 2 } }), () => sleep(1));
  beginSpan(tracer, PARENT, 'failed', 'client').end(new Error('refused'));
  await tracing.close();
  await new Promise((resolve) => collector.close(resolve));
  expect(bodies.map(({ path }) => path)).toEqual(['/v1/traces']);
  const sent = JSON.parse(bodies[0]!.body) as {
    resourceSpans: { resource: { attributes: unknown[] }; scopeSpans: { spans: Record<string, unknown>[] }[] }[];
  };
  const [{ resource, scopeSpans }] = sent.resourceSpans as [(typeof sent.resourceSpans)[0]];
  expect(resource.attributes).toContainEqual({ key: 'service.name', value: { stringValue: 'sample' } });
  expect(scopeSpans[0]!.spans).toMatchObject([
    {
      name: 'GET',
      traceId: '4bf92f3577b34da6a3ce929d0e0e4736',
      parentSpanId: '00f067aa0ba902b7',
      attributes: expect.arrayContaining([{ key: 'code', value: { stringValue: 'ok' } }]),
    },
    { name: 'failed', status: { code: 2, message: 'refused' } },
  ]);
});

test('settings of tracing: none, all, and wrong ones by name', () => {
  expect(readTracingConfig({})).toEqual({ file: undefined, otlpEndpoint: undefined, keep: 1 });
  const env = { TRACE_FILE: '/x', OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c:4318', OTEL_TRACES_SAMPLER_ARG: '0.1' };
  expect(readTracingConfig(env)).toEqual({ file: '/x', otlpEndpoint: 'http://c:4318', keep: 0.1 });
  expect(() => readTracingConfig({ OTEL_TRACES_SAMPLER_ARG: '2' })).toThrow('OTEL_TRACES_SAMPLER_ARG');
  expect(() => readTracingConfig({ OTEL_TRACES_SAMPLER_ARG: 'x' })).toThrow('OTEL_TRACES_SAMPLER_ARG');
});
