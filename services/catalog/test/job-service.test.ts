import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Code } from '@connectrpc/connect';
import { uuidv7 } from '@mad/process';
import { CachePolicy, JobService, JobState } from '@mad/proto/catalog';
import { OrganizationStatus } from '@mad/proto/identity';
import { QuotaFailureSchema } from '@mad/proto/rpc';
import { errorMetadataOf, nextPageToken, reasonOf, violationsOf } from '@mad/rpc';
import { userToken } from '@mad/testing';
import { errorOf } from './errors.ts';
import { eventually, REFERENCE, SPEC, startJobWorld, type JobWorld, type Lab } from './job-world.ts';
import { fault } from './results-neighbour.ts';

let world: JobWorld;
let lab: Lab;

beforeAll(async () => {
  world = await startJobWorld();
});
beforeEach(async () => {
  lab = await world.lab();
});
afterAll(() => world.close());

const STRANGER = '01900000-0000-7000-8000-0000000000ff';

describe('a job', () => {
  test('is made in its tenant, queued, leased, settled and ended', async () => {
    const labels = { project: 'Kinase "7"' };
    const made = await lab.submit({ name: 'first', priority: 3, labels, cachePolicy: CachePolicy.REFRESH });
    expect(made).toMatchObject({ state: JobState.QUEUED, name: 'first', priority: 3, labels, eventSeq: 1n });
    expect(made).toMatchObject({ cachePolicy: CachePolicy.REFRESH, detail: '', parameters: REFERENCE });
    expect(made.counters).toMatchObject({ requested: 3n, pending: 3n });

    const run = world.results.runs.get(made.jobId)!;
    expect(run.request).toMatchObject({ inputCount: 3, createdBy: made.createdBy, cachePolicy: CachePolicy.REFRESH });
    const [plan] = run.request.tasks;
    expect(plan).toMatchObject({ taskId: 'rank', task: 'rdkit.similarity', chunkSize: 100, cores: 1, memoryMb: 256 });
    expect(plan!.engine).toMatch(/^rdkit@/);

    const [task] = await world.lease(made.jobId);
    expect(task).toMatchObject({ orgId: lab.orgId, jobId: made.jobId, attempt: 1 });
    expect(await world.settle(task!)).toBe(true);
    const ended = await lab.job(made.jobId);
    expect(ended).toMatchObject({ state: JobState.COMPLETED, counters: { requested: 3n, scored: 3n, pending: 0n } });
    expect(ended.endTime).toBeDefined();
    expect(await world.lease(made.jobId)).toEqual([]);
  });

  test('is accepted whatever is left of its caller’s time, even and odd milliseconds alike', async () => {
    for (let timeoutMs = 3_000; timeoutMs < 3_008; timeoutMs += 1) {
      const { job } = await lab.jobs.createJob(lab.request(), { timeoutMs });
      expect(job!.jobId).not.toBe('');
    }
  });

  test('over molecules by their ids gets a sealed set of its own, in their order', async () => {
    const [a, b] = lab.moleculeIds;
    const job = await lab.submit({ moleculeSetId: '', moleculeIds: [b!, a!, b!] });
    const { moleculeSet } = await lab.sets.getMoleculeSet({ orgId: lab.orgId, moleculeSetId: job.moleculeSetId });
    expect(moleculeSet).toMatchObject({ sealed: true, size: 3, name: '' });
    const { jobs } = world.results.catalog(world.catalog.running.port);
    const inputs = [];
    for await (const batch of jobs.listJobInputs({ orgId: lab.orgId, jobId: job.jobId })) inputs.push(...batch.inputs);
    expect(inputs).toMatchObject([
      { itemNo: 1, moleculeId: b, canonicalSmiles: 'CCCO' },
      { itemNo: 2, moleculeId: a, canonicalSmiles: 'CCO' },
      { itemNo: 3, moleculeId: b, canonicalSmiles: 'CCCO' },
    ]);
    // What results may filter hits by later: propanol's as RDKit says.
    const { $typeName: _name, ...properties } = inputs[0]!.properties!;
    expect(properties).toMatchObject({ tpsa: 20.23, hbd: 1, hba: 1, rotatableBonds: 1 });
    expect(properties.molecularWeight).toBeCloseTo(60.1, 1);
    expect(properties.logp).toBeCloseTo(0.389, 2);
    const rest = [];
    for await (const batch of jobs.listJobInputs({ orgId: lab.orgId, jobId: job.jobId, afterItemNo: 2 })) {
      rest.push(...batch.inputs);
    }
    expect(rest.map(({ itemNo }) => itemNo)).toEqual([3]);
  });

  test('asked for twice is one job', async () => {
    const request = lab.request({ labels: { a: '1', b: '2' } });
    const [first, second] = await Promise.all([lab.jobs.createJob(request), lab.jobs.createJob(request)]);
    expect(second.job!.jobId).toBe(first.job!.jobId);
    const third = await lab.jobs.createJob({ ...request, labels: { b: '2', a: '1' } });
    expect(third.job!.jobId).toBe(first.job!.jobId);
    expect((await lab.jobs.listJobs({ orgId: lab.orgId })).jobs).toHaveLength(1);

    const error = await errorOf(lab.jobs.createJob({ ...request, name: 'other', priority: 1 }));
    expect([error.code, errorMetadataOf(error)['fields']]).toEqual([Code.AlreadyExists, 'name,priority']);
  });

  test('keeps every name and label as it was given', async () => {
    const hostile = `'; DROP TABLE catalog.jobs_meta; -- \\ " $1 % _ \u{1F9EA}`;
    const job = await lab.submit({ name: hostile, labels: { [hostile.slice(0, 40)]: hostile } });
    expect(await lab.job(job.jobId)).toMatchObject({ name: hostile, labels: { [hostile.slice(0, 40)]: hostile } });
  });

  test('is recorded in the audit log, and so is its cancellation', async () => {
    const { jobId } = await lab.submit();
    await lab.jobs.cancelJob({ orgId: lab.orgId, jobId, requestId: uuidv7() });
    const events = await eventually('both events arrive', async () => {
      const own = world.catalog.identity.audited.filter((event) => event.jobId === jobId);
      return own.length === 2 ? own : undefined;
    });
    expect(events.map(({ action }) => action).sort()).toEqual(['jobs.cancel', 'jobs.create']);
    expect(events[0]).toMatchObject({ orgId: lab.orgId, entityType: 'job', entityId: jobId, outcome: 'ok' });
  });
});

describe('a request that cannot be met', () => {
  const bad: [string, (one: Lab) => Parameters<Lab['request']>[0], Code, string][] = [
    ['no molecules', () => ({ moleculeSetId: '' }), Code.InvalidArgument, 'molecule_set_id'],
    ['both kinds', ({ moleculeIds }) => ({ moleculeIds }), Code.InvalidArgument, 'molecule_ids'],
    ['a set that is no id', () => ({ moleculeSetId: "x' OR 1=1 --" }), Code.InvalidArgument, 'molecule_set_id'],
    ['a priority out of range', () => ({ priority: 11 }), Code.InvalidArgument, 'priority'],
    ['an impossible confidence', () => ({ minConfidence: 1.5 }), Code.InvalidArgument, 'min_confidence'],
    ['no request id', () => ({ requestId: '' }), Code.InvalidArgument, 'request_id'],
    ['a version that is not published', () => ({ version: 2 }), Code.InvalidArgument, 'version'],
    ['an unknown parameter', () => ({ parameters: { ...REFERENCE, x: 1 } }), Code.InvalidArgument, 'parameters.x'],
    ['a missing parameter', () => ({ parameters: {} }), Code.InvalidArgument, 'parameters.reference'],
    [
      'a parameter of another type',
      () => ({ parameters: { reference: 7 } }),
      Code.InvalidArgument,
      'parameters.reference',
    ],
    [
      'a reference that is no SMILES',
      () => ({ parameters: { reference: 'C(' } }),
      Code.InvalidArgument,
      'parameters.reference',
    ],
    ['a name with a line break', () => ({ name: 'a\nb' }), Code.InvalidArgument, 'name'],
    ['a name that is too long', () => ({ name: 'x'.repeat(256) }), Code.InvalidArgument, 'name'],
    ['a label with NUL', () => ({ labels: { a: '\u0000' } }), Code.InvalidArgument, 'labels'],
    ['an empty label key', () => ({ labels: { '': 'a' } }), Code.InvalidArgument, 'labels'],
  ];
  test.each(bad)('%s', async (_what, change, code, field) => {
    const error = await errorOf(lab.jobs.createJob(lab.request(change(lab))));
    expect(error.code).toBe(code);
    expect(violationsOf(error)[0]!.field.startsWith(field)).toBe(true);
    expect((await lab.jobs.listJobs({ orgId: lab.orgId })).jobs).toEqual([]);
  });

  test('an unsealed set, an empty set', async () => {
    const orgId = lab.orgId;
    const { moleculeSet } = await lab.sets.createMoleculeSet({ orgId, requestId: uuidv7(), name: 'open' });
    const { moleculeSetId } = moleculeSet!;
    const open = await errorOf(lab.submit({ moleculeSetId }));
    expect([open.code, errorMetadataOf(open)['field']]).toEqual([Code.FailedPrecondition, 'molecule_set_id']);
    await lab.sets.sealMoleculeSet({ orgId, moleculeSetId });
    const empty = await errorOf(lab.submit({ moleculeSetId }));
    expect([empty.code, violationsOf(empty)[0]!.field]).toEqual([Code.InvalidArgument, 'molecule_set_id']);
  });

  test('a pipeline without published version; seed 0', async () => {
    const by = () => ({ orgId: lab.orgId, requestId: uuidv7() });
    const { pipeline } = await lab.pipelines.createPipeline({ ...by(), name: 'draft' });
    const { pipelineId } = pipeline!;
    const spec = {
      ...SPEC,
      parameters: {
        seed: { type: 'integer', minimum: -10, maximum: 10 },
        receptor: { type: 'string', format: 'artifact' },
      },
      tasks: [
        {
          id: 'dock',
          task: 'vina.dock',
          inputs: { molecules: 'job.molecules' },
          parameters: {
            receptor: '${receptor}',
            seed: '${seed}',
            center_x: 0,
            center_y: 0,
            center_z: 0,
            size_x: 20,
            size_y: 20,
            size_z: 20,
          },
        },
      ],
    };
    await lab.pipelines.createPipelineVersion({ ...by(), pipelineId, spec });
    const draft = await errorOf(lab.submit({ pipelineId }));
    expect([draft.code, violationsOf(draft)[0]!.field]).toEqual([Code.InvalidArgument, 'version']);
    await lab.pipelines.publishPipelineVersion({ ...by(), pipelineId, version: 1 });
    const seedless = await errorOf(lab.submit({ pipelineId, parameters: { seed: 0, receptor: STRANGER } }));
    expect([seedless.code, violationsOf(seedless)[0]!.field]).toEqual([Code.InvalidArgument, 'parameters.seed']);
  });

  test('an organization that is suspended, or that identity does not know', async () => {
    const known = world.catalog.identity.organizations;
    const suspended = await world.lab();
    // What is remembered of an organization is 30 s old at most: these are asked about for the first time.
    const unknown = { orgId: uuidv7() };
    const token = await userToken({ orgId: unknown.orgId, permissions: ['jobs.create'] });
    const stranger = world.catalog.as(JobService, token);
    const missing = await errorOf(stranger.createJob({ ...suspended.request(), orgId: unknown.orgId }));
    expect([missing.code, reasonOf(missing)]).toEqual([Code.NotFound, 'ORGANIZATION_NOT_FOUND']);

    const fresh = { ...known.get(suspended.orgId)!, orgId: uuidv7(), status: OrganizationStatus.SUSPENDED };
    known.set(fresh.orgId, fresh);
    const member = await world.catalog.member(JobService, fresh);
    const refused = await errorOf(member.createJob({ ...suspended.request(), orgId: fresh.orgId }));
    expect([refused.code, reasonOf(refused)]).toEqual([Code.FailedPrecondition, 'TENANT_SUSPENDED']);
  });
});

describe('quotas', () => {
  test('a job over max_concurrent_jobs waits, says why, and begins when another ends', async () => {
    const small = await world.lab({ maxConcurrentJobs: 1 });
    const first = await small.submit();
    const second = await small.submit();
    const urgent = await small.submit({ priority: 5 });
    expect([first.state, second.state]).toEqual([JobState.QUEUED, JobState.PENDING]);
    expect(second.detail).toBe('waiting for another job to end: the organization may run 1 job at once');
    expect(world.results.runs.has(second.jobId)).toBe(false);

    const [task] = await world.lease(first.jobId);
    await world.settle(task!);
    await eventually('the urgent one begins', async () => {
      return (await small.job(urgent.jobId)).state === JobState.QUEUED ? true : undefined;
    });
    expect((await small.job(second.jobId)).state).toBe(JobState.PENDING);
    expect((await small.job(urgent.jobId)).detail).toBe('');
  });

  test('a job over max_queued_tasks is refused, and another organization’s is not', async () => {
    const small = await world.lab({ maxQueuedTasks: 1 });
    await small.submit();
    const error = await errorOf(small.submit());
    expect([error.code, reasonOf(error)]).toEqual([Code.ResourceExhausted, 'QUOTA_EXCEEDED']);
    expect(errorMetadataOf(error)).toMatchObject({ quota: 'max_queued_tasks', limit: '1' });
    expect(error.findDetails(QuotaFailureSchema)[0]!.violations[0]!.subject).toBe(`organizations/${small.orgId}`);
    expect((await small.jobs.listJobs({ orgId: small.orgId })).jobs).toHaveLength(1);
    await lab.submit();
  });

  test('of ten jobs asked for at once no more are taken than fit', async () => {
    const small = await world.lab({ maxQueuedTasks: 4, maxConcurrentJobs: 2 });
    const outcomes = await Promise.allSettled(Array.from({ length: 10 }, () => small.submit()));
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(4);
    const { jobs } = await small.jobs.listJobs({ orgId: small.orgId });
    expect(jobs.filter(({ state }) => state === JobState.QUEUED)).toHaveLength(2);
    expect(jobs.filter(({ state }) => state === JobState.PENDING)).toHaveLength(2);
  });
});

describe('cancelling', () => {
  const cancel = (of: Lab, jobId: string) => of.jobs.cancelJob({ orgId: of.orgId, jobId, requestId: uuidv7() });

  test('ends the job, and its worker is told to stop', async () => {
    const { jobId } = await lab.submit();
    const [task] = await world.lease(jobId);
    const { orgId, taskExecutionId, attempt } = task!;
    const { job } = await cancel(lab, jobId);
    expect(job).toMatchObject({ state: JobState.CANCELLED, cancelRequested: true, counters: { cancelled: 3n } });
    const beat = await world.worker.heartbeatTasks({ worker: 'w1', leases: [{ orgId, taskExecutionId, attempt }] });
    expect(beat).toMatchObject({ stop: [taskExecutionId], extended: [] });
    // What the worker's results tell late changes nothing.
    expect(await world.settle(task!)).toBe(false);
    expect((await lab.job(jobId)).state).toBe(JobState.CANCELLED);
  });

  test('of what waits for a place ends it there and then, and the tenant never hears of it', async () => {
    const small = await world.lab({ maxConcurrentJobs: 1 });
    await small.submit();
    const waiting = await small.submit();
    const { job } = await cancel(small, waiting.jobId);
    expect(job).toMatchObject({ state: JobState.CANCELLED, counters: { requested: 0n } });
    expect(world.results.calls.filter((call) => call.includes(waiting.jobId))).toEqual([]);
  });

  test('of what has ended is refused; the same request again is not', async () => {
    const { jobId } = await lab.submit();
    const request = { orgId: lab.orgId, jobId, requestId: uuidv7() };
    await lab.jobs.cancelJob(request);
    expect((await lab.jobs.cancelJob(request)).job!.state).toBe(JobState.CANCELLED);
    const error = await errorOf(cancel(lab, jobId));
    expect([error.code, reasonOf(error)]).toEqual([Code.FailedPrecondition, 'JOB_ENDED']);
  });

  test('while results is away is done by its message, and nothing is leased meanwhile', async () => {
    const { jobId } = await lab.submit();
    world.results.faults.set('cancel', { error: fault(Code.Unavailable), times: 1 });
    const { job } = await cancel(lab, jobId);
    expect(job).toMatchObject({ state: JobState.QUEUED, cancelRequested: true });
    expect(await world.lease(jobId)).toEqual([]);
    await eventually('the message ends it', async () => {
      return (await lab.job(jobId)).state === JobState.CANCELLED ? true : undefined;
    });
  });
});

describe('a list', () => {
  test('goes through all jobs once, newest first, and filters by state', async () => {
    const ids = [];
    for (let count = 0; count < 5; count += 1) ids.push((await lab.submit()).jobId);
    await lab.jobs.cancelJob({ orgId: lab.orgId, jobId: ids[2]!, requestId: uuidv7() });
    const seen: string[] = [];
    let pageToken = '';
    do {
      const page = await lab.jobs.listJobs({ orgId: lab.orgId, pageSize: 2, pageToken });
      seen.push(...page.jobs.map(({ jobId }) => jobId));
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    expect(seen).toEqual(ids.toReversed());
    const { jobs } = await lab.jobs.listJobs({ orgId: lab.orgId, state: JobState.CANCELLED });
    expect(jobs.map(({ jobId }) => jobId)).toEqual([ids[2]]);
  });

  test('refuses a token of another query, and a forged one', async () => {
    for (let count = 0; count < 2; count += 1) await lab.submit();
    const { orgId } = lab;
    const { nextPageToken: token } = await lab.jobs.listJobs({ orgId, pageSize: 1 });
    const forged = nextPageToken({ list: 'jobs', orgId, state: null }, "' OR true --");
    for (const pageToken of [forged, 'x', token.slice(1)]) {
      const error = await errorOf(lab.jobs.listJobs({ orgId, pageToken }));
      expect([error.code, violationsOf(error)[0]!.field]).toEqual([Code.InvalidArgument, 'page_token']);
    }
    const filtered = await errorOf(lab.jobs.listJobs({ orgId, pageToken: token, state: JobState.FAILED }));
    expect(violationsOf(filtered)).toEqual([{ field: 'page_token', description: 'belongs to another query' }]);
  });
});

describe('another organization', () => {
  test('finds nothing of a job, by any method', async () => {
    const { jobId } = await lab.submit();
    const spy = await world.lab();
    const { orgId } = spy;
    const attempts: Record<string, () => Promise<unknown>> = {
      get: () => spy.jobs.getJob({ orgId, jobId }),
      cancel: () => spy.jobs.cancelJob({ orgId, jobId, requestId: uuidv7() }),
      set: () => spy.submit({ moleculeSetId: lab.moleculeSetId }),
      molecule: () => spy.submit({ moleculeSetId: '', moleculeIds: [spy.moleculeIds[0]!, lab.moleculeIds[0]!] }),
      pipeline: () => spy.submit({ pipelineId: lab.pipelineId }),
      inputs: async () => {
        const { jobs } = world.results.catalog(world.catalog.running.port);
        for await (const batch of jobs.listJobInputs({ orgId, jobId })) throw new Error(`got ${batch.inputs.length}`);
      },
      settle: () => {
        const { queue } = world.results.catalog(world.catalog.running.port);
        return queue.settleTask({ orgId, taskExecutionId: uuidv7(), progress: world.results.progress(jobId) });
      },
    };
    for (const [name, attempt] of Object.entries(attempts)) {
      expect([name, (await errorOf(attempt())).code]).toEqual([name, Code.NotFound]);
    }
    expect((await spy.jobs.listJobs({ orgId })).jobs).toEqual([]);
    const foreign = await errorOf(spy.jobs.getJob({ orgId: lab.orgId, jobId }));
    expect([foreign.code, reasonOf(foreign)]).toEqual([Code.NotFound, 'ORGANIZATION_NOT_FOUND']);
    expect((await lab.job(jobId)).state).toBe(JobState.QUEUED);
  });

  test('is not found even where row-level security is gone, and not seen where the filters are', async () => {
    const { jobId } = await lab.submit();
    const spy = await world.lab();
    const tables = ['jobs_meta', 'org_queue', 'org_queue_depth', 'task_queue'];
    const { rows } = await world.catalog.admin.query<{ n: string }>(
      `SELECT count(*) AS n FROM pg_class WHERE relnamespace = 'catalog'::regnamespace
       AND relname = ANY ($1) AND relrowsecurity AND relforcerowsecurity`,
      [tables],
    );
    expect(rows[0]!.n).toBe('4');
    await world.catalog.admin.query('ALTER TABLE catalog.jobs_meta DISABLE ROW LEVEL SECURITY');
    try {
      expect((await errorOf(spy.jobs.getJob({ orgId: spy.orgId, jobId }))).code).toBe(Code.NotFound);
      expect((await spy.jobs.listJobs({ orgId: spy.orgId })).jobs).toEqual([]);
    } finally {
      await world.catalog.admin.query('ALTER TABLE catalog.jobs_meta ENABLE ROW LEVEL SECURITY');
    }
    // As the service's login, bound to the spy, with no filter at all.
    await world.catalog.admin.query('BEGIN');
    try {
      await world.catalog.admin.query(`SET LOCAL ROLE mad_catalog`);
      await world.catalog.admin.query(`SELECT set_config('app.current_org_id', $1, true)`, [spy.orgId]);
      for (const table of tables) {
        const seen = await world.catalog.admin.query(`SELECT 1 FROM catalog.${table} WHERE org_id <> $1`, [spy.orgId]);
        expect([table, seen.rowCount]).toEqual([table, 0]);
      }
    } finally {
      await world.catalog.admin.query('ROLLBACK');
    }
  });
});
