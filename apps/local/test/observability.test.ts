import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { createLogger, type SpanLine } from '@mad/process';
import { JobState } from '@mad/proto/catalog';
import { OrganizationService } from '@mad/proto/identity';
import { TenantService, TenantState } from '@mad/proto/provisioner';
import { startLocal, type LocalSystem } from '../src/start.ts';
import { eventually } from './support/fleet.ts';
import { newOrganization, signIn, type Person } from './support/people.ts';
import { alkanes, ended, examplePipeline, IMATINIB, library } from './support/science.ts';

const SLOW = 240_000;
const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const TRACEPARENT = `00-${TRACE}-00f067aa0ba902b7-01`;

let home: string;
let system: LocalSystem;
let platform: Person;
let acme: Person;
let jobId: string;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'mad-observability-'));
  const logger = createLogger('observability', { level: 'silent' });
  // A trace of one's own is kept whatever the share of the others is.
  const outer = { OTEL_TRACES_SAMPLER_ARG: '0', WORKER_METRICS_PORT: '0' };
  system = await startLocal({ home, logger, anyPorts: true, outer, postgresSettings: { fsync: 'off' } });
  platform = await signIn(system.url, system.secrets.administrator);
  acme = (await newOrganization(system.url, platform, 'acme')).admin;
  const moleculeSetId = await library(acme, alkanes(20));
  const pipelineId = await examplePipeline(acme, 'ligand-screening.json');
  const response = await fetch(`${system.url}/v1/organizations/${acme.orgId}/jobs`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${acme.accessToken}`,
      'content-type': 'application/json',
      traceparent: TRACEPARENT,
    },
    body: JSON.stringify({
      requestId: crypto.randomUUID(),
      pipelineId,
      moleculeSetId,
      parameters: { reference: IMATINIB },
    }),
  });
  const body = (await response.json()) as { job?: { jobId: string } };
  if (!body.job) throw new Error(JSON.stringify(body));
  jobId = body.job.jobId;
}, SLOW);

afterAll(async () => {
  await system?.close();
  await rm(home, { recursive: true, force: true });
}, SLOW);

function spans(): SpanLine[] {
  const text = readFileSync(join(home, 'logs', 'spans.jsonl'), 'utf8').trim();
  return text.split('\n').map((line) => JSON.parse(line) as SpanLine);
}

describe('a trace', () => {
  test(
    'goes from the request that created a job through every service, both queues and the worker',
    async () => {
      expect((await ended(acme, jobId)).state).toBe(JobState.COMPLETED);
      const has = (service: string, name: string) => (span: SpanLine) => span.service === service && span.name === name;
      const wanted = [
        has('gateway', 'HTTP POST'),
        has('gateway', 'mad.catalog.v1.JobService/CreateJob'),
        has('catalog', 'mad.catalog.v1.JobService/CreateJob'),
        has('catalog', 'catalog transaction'),
        has('results', 'mad.results.v1.ExecutionService/MaterializeJob'),
        has('results', 'tenants.transact'),
        has('catalog', 'enqueue'),
        has('catalog', 'task queued'),
        has('worker', 'task'),
        has('worker', 'mad.results.v1.ExecutionService/StartExecution'),
        has('worker', 'engine rdkit.similarity'),
        has('results', 'mad.results.v1.ExecutionService/AppendResults'),
        has('results', 'mad.results.v1.ExecutionService/FinishExecution'),
        has('catalog', 'mad.catalog.v1.QueueService/SettleTask'),
        has('catalog', 'queue materialize'),
        has('catalog', 'queue audit'),
      ];
      const found = await eventually('every step is written', () => {
        const own = spans().filter((span) => span.trace_id === TRACE);
        return Promise.resolve(wanted.every((one) => own.some(one)) && own);
      });
      // One tree: every step but the first is below another, and ends in what the caller sent.
      const ids = new Set(found.map((span) => span.span_id));
      const outside = found.filter((span) => !ids.has(span.parent_span_id ?? ''));
      expect(outside.map(({ name, parent_span_id: parent }) => [name, parent])).toEqual([
        ['HTTP POST', '00f067aa0ba902b7'],
      ]);
    },
    SLOW,
  );

  test('that nobody asked for is not kept where none is to be', () => {
    expect(new Set(spans().map((span) => span.trace_id))).toEqual(new Set([TRACE]));
  });

  test('is what mad logs --trace shows; an unknown one is exit code 3', async () => {
    const MAD = join(import.meta.dirname, '../../cli/src/main.ts');
    const mad = (...args: string[]) =>
      new Promise<{ code: number | null; stdout: string }>((resolve) => {
        const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', MAD, '--home', home, ...args]);
        let stdout = '';
        child.stdout.on('data', (data: Buffer) => (stdout += data.toString()));
        child.once('close', (code) => resolve({ code, stdout }));
      });
    // Here the services log nowhere.
    await writeFile(join(home, 'logs', 'system.log'), '');
    const shown = await mad('logs', '--trace', TRACE);
    expect(shown.code).toBe(0);
    expect(shown.stdout).toMatch(/^trace 4bf92f3577b34da6a3ce929d0e0e4736: \d+ spans, 0 lines/);
    expect(shown.stdout).toMatch(/worker .*task \(consumer\).*attempt=1/);
    expect((await mad('logs', '--trace', 'f'.repeat(32))).code).toBe(3);
  });
});

/** Series of an exposition by metric family, and what it says of each family. */
function parseExposition(text: string) {
  const families = new Map<string, { help: string; type: string; series: Set<string> }>();
  let family = { help: '', type: '', series: new Set<string>() };
  for (const line of text.split('\n')) {
    const help = /^# HELP (\S+) ?(.*)$/.exec(line);
    const type = /^# TYPE (\S+) (\S+)$/.exec(line);
    if (help) families.set(help[1]!, (family = { help: help[2]!, type: '', series: new Set() }));
    else if (type) family.type = type[2]!;
    else if (line !== '') family.series.add(line.slice(0, line.lastIndexOf(' ')));
  }
  return families;
}

const metricsOf = async (url: string): Promise<string> => {
  const response = await fetch(`${url}/metrics`);
  expect(response.status).toBe(200);
  expect(response.headers.get('content-type')).toContain('text/plain');
  return response.text();
};
const places = (): [string, string][] => [
  ['gateway', system.url],
  ...(['identity', 'catalog', 'results', 'provisioner'] as const).map((name): [string, string] => [
    name,
    `http://127.0.0.1:${system.ports[name].connectPort}`,
  ]),
];

/** Names end in a unit or say what they count (prometheus.io/docs/practices/naming). */
const UNIT = /_(seconds|bytes|ratio|info|total)$/;
/** What prom-client calls Node's own, known to every dashboard. */
const NODE_OWN = /^(process|nodejs)_/;

/** PROVISIONER_TOP_TENANTS' default. */
const TOP_TENANTS = 20;

describe('metrics', () => {
  test('every service shows its own, with help, by standard names', async () => {
    for (const [service, url] of places()) {
      const families = parseExposition(await metricsOf(url));
      expect(families.size).toBeGreaterThan(1);
      for (const [name, { help, type, series }] of families) {
        const about = `${service} ${name}`;
        expect([about, name]).toEqual([about, expect.stringMatching(/^[a-z][a-z0-9]*(_[a-z0-9]+)*$/)]);
        expect([about, help.length > 10]).toEqual([about, true]);
        expect([about, type]).toEqual([about, expect.stringMatching(/^(counter|gauge|histogram|summary)$/)]);
        if (NODE_OWN.test(name)) continue;
        expect([about, name.endsWith('_total')]).toEqual([about, type === 'counter']);
        if (type === 'histogram') expect([about, UNIT.test(name)]).toEqual([about, true]);
        // The few largest organizations are named, all others are one series.
        const unbounded = name.startsWith('tenant_top_') ? 'path|job_id|user_id' : 'org_id|path|job_id|user_id';
        if (name.startsWith('tenant_top_')) expect(series.size).toBeLessThanOrEqual(TOP_TENANTS + 1);
        for (const one of series)
          expect([about, one]).toEqual([about, expect.not.stringMatching(new RegExp(`[{,](${unbounded})=`))]);
      }
    }
  });

  test('operators find what they watch', async () => {
    const found = new Map<string, string[]>();
    for (const [service, url] of places()) found.set(service, [...parseExposition(await metricsOf(url)).keys()]);
    const own: Record<string, string[]> = {
      identity: ['rpc_duration_seconds', 'database_connections', 'queue_messages', 'queue_oldest_message_seconds'],
      catalog: [
        'task_queue_tasks',
        'task_queue_oldest_seconds',
        'jobs_open',
        'jobs_silent_seconds',
        'cache_requests_total',
        'queue_messages',
      ],
      results: ['tenant_connections', 'tenant_connection_wait_seconds', 'tenants_open', 'settle_lag_seconds'],
      provisioner: ['tenants', 'tenant_steps_unfinished', 'database_connections'],
      gateway: [
        'http_request_duration_seconds',
        'nodejs_eventloop_lag_seconds',
        'process_resident_memory_bytes',
        'worker_running_tasks',
      ],
    };
    for (const [service, names] of Object.entries(own)) {
      expect([service, found.get(service)]).toEqual([service, expect.arrayContaining(names)]);
    }
  });

  test(
    'fifty organizations more add no series of their own',
    async () => {
      const count = async (): Promise<number> => {
        let series = 0;
        for (const [, url] of places())
          for (const [name, one] of parseExposition(await metricsOf(url)))
            if (!name.startsWith('tenant_top_')) series += one.series.size;
        return series;
      };
      // What organizations are made and looked at by is counted once, whoever is looked at.
      const visit = async (slug: string): Promise<void> => {
        const { admin } = await newOrganization(system.url, platform, slug);
        await library(admin, alkanes(2));
      };
      await visit('first');
      const before = await count();
      const slugs = Array.from({ length: 50 }, (_, i) => `more-${i}`);
      const organizations = platform.client(OrganizationService);
      for (const slug of slugs)
        await organizations.createOrganization({ requestId: crypto.randomUUID(), slug, name: slug });
      await eventually(
        'all of them have their databases',
        async () => {
          const { tenants } = await platform
            .client(TenantService)
            .listTenants({ state: TenantState.READY, pageSize: 1000 });
          return tenants.length >= slugs.length;
        },
        SLOW,
      );
      await visit('last');
      // New codes of calls may have been seen meanwhile, each with its seventeen series of a histogram.
      expect((await count()) - before).toBeLessThan(50);
    },
    SLOW,
  );
});
