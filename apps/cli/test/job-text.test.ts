import { create } from '@bufbuild/protobuf';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { expect, test } from '@jest/globals';
import {
  JobState,
  JobWaitingSchema,
  JobWaitReason,
  OrganizationSummarySchema,
  TenantAvailability,
  TenantJobSchema,
  UsageSchema,
} from '@mad/proto/catalog';
import { OrganizationStatus } from '@mad/proto/identity';
import { TenantState } from '@mad/proto/provisioner';
import { summaryText } from '../src/commands/organization-summary.ts';
import { usageTable } from '../src/commands/usage.ts';
import { standingLines, waitingText } from '../src/job-text.ts';

const waiting = create(JobWaitingSchema, {
  reason: JobWaitReason.JOB_QUOTA,
  detail: 'waiting for another job to end',
  position: 2n,
  estimatedWait: durationFromMs(40_000),
});

test('what a job waits for is told with its place and the time, where they are known', () => {
  expect(waitingText(waiting)).toBe('waiting for another job to end, place 2, about 40.0 s');
  expect(waitingText(create(JobWaitingSchema, { detail: 'waiting' }))).toBe('waiting');
});

test('the tenant’s part is told, or which way it is not to be had and why', () => {
  const suspended = create(TenantJobSchema, {
    availability: TenantAvailability.SUSPENDED,
    reason: 'TENANT_SUSPENDED',
    detail: 'the organization is suspended',
  });
  expect(standingLines(suspended, waiting)).toEqual([
    '  waiting for another job to end, place 2, about 40.0 s',
    '  tenant suspended: the organization is suspended (TENANT_SUSPENDED)',
  ]);
  const missing = create(TenantJobSchema, {
    availability: TenantAvailability.NOT_MATERIALIZED,
    detail: 'the job has not begun',
  });
  expect(standingLines(missing, undefined)).toEqual(['  tenant not materialized: the job has not begun']);
  const running = create(TenantJobSchema, {
    availability: TenantAvailability.AVAILABLE,
    state: JobState.RUNNING,
    eventSeq: 4n,
    tasks: [{ taskId: 'dock', engine: 'vina@1.2.3', counters: { requested: 14n, pending: 9n } }],
  });
  expect(standingLines(running, undefined)).toEqual(['  tenant running at event 4: dock on vina@1.2.3 5 of 14']);
});

test('what was used is a line for each group, users by their address where it is known', () => {
  const counts = {
    jobs: 2n,
    molecules: 182n,
    itemsComputed: 91n,
    itemsCached: 91n,
    coreMs: 9_000_000n,
    savedCoreMs: 360_000n,
  };
  const usage = [
    create(UsageSchema, { month: '2026-11', userId: 'a', ...counts }),
    create(UsageSchema, { month: '2026-11', userId: 'b', jobs: 1n }),
  ];
  expect(usageTable(usage, 'both', new Map([['a', 'alice@acme.example']])).split('\n')).toEqual([
    'month    user                jobs  molecules  computed  cached  failed  core hours  saved',
    '───────  ──────────────────  ────  ─────────  ────────  ──────  ──────  ──────────  ─────',
    '2026-11  alice@acme.example     2        182        91      91       0         2.5    0.1',
    '2026-11  b                      1          0         0       0       0           0      0',
  ]);
  expect(usageTable([], 'month', new Map())).toBe('none');
});

test('a summary tells its databases, or why they are not told', () => {
  const summary = create(OrganizationSummarySchema, {
    slug: 'acme',
    name: 'Acme',
    orgId: 'id',
    status: OrganizationStatus.ACTIVE,
    jobs: { total: 3n, completed: 2n, failed: 1n },
    quotas: [{ quota: 'max_molecules', limit: 1_000_000n, used: 91n }],
    tenants: [{ schema: 'results', state: TenantState.READY, schemaVersion: 'V1', sizeBytes: 9_090_751n }],
    stored: [{ purpose: 'poses', objects: 3n, sizeBytes: 2_097_152n }],
  });
  expect(summaryText(summary).split('\n')).toEqual([
    'acme (Acme) id: active',
    'jobs 3: 0 pending, 0 queued, 0 running, 2 completed, 1 failed, 0 cancelled',
    'database results: READY, 8.7 MiB, V1',
    'poses in objects: 3, 2.0 MiB',
    '',
    'quota          used    limit',
    '─────────────  ────  ───────',
    'max_molecules    91  1000000',
  ]);
  const usage = create(UsageSchema, { coreMs: 5_400_000n, savedCoreMs: 1_000n });
  expect(summaryText({ ...summary, usage })).toContain('\ncore hours 1.5, saved by earlier results 0\n');
  const silent = { ...summary, tenants: [], tenantsUnavailable: 'the provisioner does not answer' };
  expect(summaryText(silent)).toContain('databases unknown: the provisioner does not answer');
  expect(summaryText({ ...summary, stored: [], storedUnavailable: 'its results do not answer' })).toContain(
    '\nobjects unknown: its results do not answer\n',
  );
  expect(summaryText({ ...summary, tenants: [] })).toContain('no database yet');
});
