import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, statSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { text } from 'node:stream/consumers';
import { afterAll, describe, expect, test } from '@jest/globals';

const MAD = fileURLToPath(new URL('../../cli/src/main.ts', import.meta.url));
const SLOW = 240_000;
const home = mkdtempSync(join(tmpdir(), 'mad-demo-'));

/** Runs the command line as a person does. */
async function mad(args: string[], input = ''): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', MAD, '--home', home, ...args], {
    env: { PATH: process.env.PATH, HOME: process.env.HOME },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  child.stdin.end(input);
  const code = new Promise<number | null>((resolve) => child.once('exit', resolve));
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  return { code: await code, stdout, stderr };
}

/** The last line of stdout as JSON. */
async function madJson(args: string[], input = ''): Promise<Record<string, unknown>> {
  const { code, stdout, stderr } = await mad(['--json', ...args], input);
  if (code !== 0) throw new Error(`mad ${args.join(' ')} ended with ${code}: ${stderr}`);
  return JSON.parse(stdout.trim().split('\n').at(-1)!) as Record<string, unknown>;
}

afterAll(async () => {
  await mad(['down']);
  await rm(home, { recursive: true, force: true });
}, SLOW);

interface Hit {
  moleculeId: string;
  score: number;
}
interface Named {
  moleculeId: string;
  name: string;
  synonyms: string[];
}
const median = (values: number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
const vinaInstalled = ['vina', 'obabel'].every((name) =>
  (process.env.PATH ?? '').split(':').some((folder) => existsSync(join(folder, name))),
);

interface Demo {
  ok: boolean;
  postgres: string;
  organizations: { slug: string; org_id: string; tenant_state: string; provision_ms: number }[];
  molecules: { registered: number; rejected: number };
  jobs: Record<string, number | string>[];
  top_hits: { molecule: string; smiles: string; score: number; units: string }[];
  isolation: { attempted: number; denied: number };
  docking: string;
}

describe('the demo', () => {
  test(
    'does the main job from nothing',
    async () => {
      const demo = (await madJson(['demo'])) as unknown as Demo;
      expect(demo.ok).toBe(true);
      expect(demo.postgres).toMatch(/^\d+/);
      expect(demo.organizations.map((one) => [one.slug, one.tenant_state])).toEqual([
        ['acme', 'READY'],
        ['globex', 'READY'],
      ]);
      expect(demo.molecules.rejected).toBe(3);
      expect(demo.molecules.registered).toBeGreaterThanOrEqual(60);
      for (const job of demo.jobs) {
        const { requested, cached, scored, failed, skipped, cancelled, pending } = job as Record<string, number>;
        expect(requested).toBe(cached! + scored! + failed! + skipped! + cancelled! + pending!);
        expect(job.state).toBe('completed');
      }
      expect(demo.jobs[0]).toMatchObject({ cached: 0, failed: 0 });
      expect(demo.jobs.at(-1)).toMatchObject({ scored: 0, cached: demo.jobs[0]!.requested });
      // Imatinib is in the library: the molecule most like the reference is itself.
      expect(demo.top_hits[0]).toMatchObject({ molecule: 'imatinib', score: 1, units: 'tanimoto' });
      expect(demo.top_hits).toHaveLength(10);
      expect(demo.top_hits.map((hit) => hit.score)).toEqual(
        demo.top_hits.map((hit) => hit.score).toSorted((a, b) => b - a),
      );
      expect(demo.isolation.attempted).toBeGreaterThanOrEqual(28);
      expect(demo.isolation.denied).toBe(demo.isolation.attempted);
    },
    SLOW,
  );

  test(
    'runs again on the same data, all from the cache',
    async () => {
      const demo = (await madJson(['demo'])) as unknown as Demo;
      expect(demo.ok).toBe(true);
      expect(demo.jobs[0]).toMatchObject({ scored: 0, cached: demo.jobs[0]!.requested });
    },
    SLOW,
  );
});

const scores = resolve(import.meta.dirname, '../../../../shared/data/bcd-generated/guest_scores.jsonl');
const withScores = existsSync(scores) && vinaInstalled ? test : test.skip;
withScores(
  `docked guests stand in the order of the published scores${existsSync(scores) ? '' : ' (skipped: no shared/data)'}`,
  async () => {
    const published = readFileSync(scores, 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { guest: string; obabel: number[] })
      // The data set writes the last one with its size in front.
      .map(({ guest, obabel }) => ({ name: guest.replace('C60-sized decoy ', ''), score: median(obabel) }));
    const jobs = (await madJson(['--org', 'acme', 'job', 'list'])) as unknown as { jobId: string; name: string }[];
    const { jobId } = jobs.find((job) => job.name === 'guests in β-cyclodextrin')!;
    const hits = (await madJson(['--org', 'acme', 'hits', jobId, '--limit', '14'])) as unknown as Hit[];
    const molecules = (await madJson(['--org', 'acme', 'molecule', 'list', '--limit', '1000'])) as unknown as Named[];
    const names = new Map(molecules.map((one) => [one.moleculeId, [one.name, ...one.synonyms]]));
    const ours = new Map(hits.flatMap((hit) => (names.get(hit.moleculeId) ?? []).map((name) => [name, hit.score])));
    expect(published.filter(({ name }) => !ours.has(name))).toEqual([]);
    // A search is a search: guests closer than this may change places.
    const CLEARLY_KCAL = 0.3;
    for (const a of published) {
      for (const b of published) {
        if (b.score - a.score > CLEARLY_KCAL)
          expect([a.name, b.name, ours.get(a.name)! < ours.get(b.name)!]).toEqual([a.name, b.name, true]);
      }
    }
  },
  SLOW,
);

describe('the command line on the same system', () => {
  test('secrets are for their owner only and in no log', async () => {
    const administrator = JSON.parse(readFileSync(join(home, 'administrator.json'), 'utf8')) as { password: string };
    for (const file of ['administrator.json', 'secrets.json', 'sessions.json', 'local.json', 'demo.json']) {
      expect([file, statSync(join(home, file)).mode & 0o077]).toEqual([file, 0]);
    }
    const log = readFileSync(join(home, 'logs', 'system.log'), 'utf8');
    const secrets = readFileSync(join(home, 'secrets.json'), 'utf8');
    expect(log).not.toContain(administrator.password);
    for (const [, password] of secrets.matchAll(/"(?:app|system|migrator|provisionerAdmin|d)": "([^"]+)"/g)) {
      expect(log).not.toContain(password);
    }
  });

  test(
    'health, db list, seed and migrations',
    async () => {
      expect(await madJson(['health'])).toMatchObject({ ok: true });
      expect(await madJson(['db', 'list'])).toHaveLength(2);
      expect(await madJson(['seed'])).toMatchObject({ created: 0 });
      expect(await madJson(['migrate'])).toEqual({ identity: [], catalog: [], provisioner: [], reporting: [] });
      expect(await madJson(['migrate-results'])).toMatchObject({ ok: true });
    },
    SLOW,
  );

  test(
    'a member works with what the demo left',
    async () => {
      const organizations = await madJson(['org', 'list']);
      expect(organizations).toHaveLength(2);
      expect(await madJson(['--org', 'acme', 'molecule', 'list', '--query', 'imatinib'])).toMatchObject([
        { name: 'imatinib' },
      ]);
      const jobs = (await madJson(['--org', 'acme', 'job', 'list'])) as unknown as { jobId: string }[];
      const { jobId } = jobs.at(-1)!;
      expect(await madJson(['--org', 'acme', 'hits', jobId, '--limit', '3'])).toHaveLength(3);
      const events = (await madJson(['--org', 'acme', 'job', 'events', jobId])) as unknown as { seqNo: string }[];
      expect(events.map((event) => Number(event.seqNo))).toEqual(events.map((_, i) => i + 1));
      const token = (await madJson(['--org', 'acme', 'token', 'create', 'ci'])) as { secret: string };
      expect(token.secret).toMatch(/^mad_/);
    },
    SLOW,
  );

  test(
    'mistakes have stable exit codes and name what is wrong',
    async () => {
      const unknown = await mad(['--json', '--org', 'acme', 'job', 'show', '0198c000-0000-7000-8000-000000000001']);
      expect(unknown.code).toBe(3);
      expect(JSON.parse(unknown.stderr)).toMatchObject({ code: 'NOT_FOUND' });
      const malformed = await mad(['--json', '--org', 'acme', 'job', 'show', 'x']);
      expect(malformed.code).toBe(2);
      expect(JSON.parse(malformed.stderr)).toMatchObject({ fields: [{ field: 'job_id' }] });
      expect((await mad(['nonsense'])).code).toBe(2);
      expect((await mad(['--org', 'nobody', 'user', 'list'])).code).toBe(4);
      const wrong = await mad(['login', '--email', 'nobody@acme.example', '--password-stdin'], 'wrong password');
      expect(wrong.code).toBe(4);
      const remote = await mad(['--url', 'http://127.0.0.1:1', 'reset', '--yes']);
      expect(remote.code).toBe(5);
    },
    SLOW,
  );

  test(
    'SQL without psql',
    async () => {
      const { code, stdout } = await mad(['shell'], 'SELECT slug FROM organizations ORDER BY slug;\n');
      expect(code).toBe(0);
      expect(stdout).toContain('acme');
      expect((await mad(['shell'], 'SELECT nonsense;\n')).code).toBe(1);
      const seeds = readFileSync(new URL('support/seed-queries.sql', import.meta.url), 'utf8');
      const printed = await mad(['shell', '--json'], seeds);
      expect([printed.code, printed.stderr]).toEqual([0, '']);
      const [jobs, connections, sizes] = printed.stdout
        .trim()
        .split('\n')
        .map((line) => (JSON.parse(line) as { rows: string[][] }).rows);
      expect(jobs!.map(([name, , limit]) => [name, limit])).toContainEqual(['acme', '10']);
      expect(Number(jobs!.find(([name]) => name === 'acme')![1])).toBeGreaterThan(0);
      expect(connections!.map(([database]) => database)).toContain('mad_metadata');
      expect(sizes!.filter(([database]) => database!.startsWith('mad_results_')).length).toBeGreaterThanOrEqual(2);
    },
    SLOW,
  );

  test(
    'SQL on one organization’s results, which only reads',
    async () => {
      const items = 'SELECT count(*) FROM task_results;\n';
      const { code, stdout } = await mad(['shell', '--org', 'acme', '--json'], items);
      expect(code).toBe(0);
      const { rows } = JSON.parse(stdout) as { rows: string[][] };
      expect(Number(rows[0]![0])).toBeGreaterThan(0);
      const refused = await mad(['shell', '--org', 'acme'], "UPDATE jobs SET error = 'x';\n");
      expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('start it with --write')]);
      expect((await mad(['shell', '--org', 'nobody'])).code).toBe(3);
      expect((await mad(['--url', 'http://127.0.0.1:1', 'shell'])).code).toBe(5);
    },
    SLOW,
  );

  test(
    'an organization at a glance, and a job as its tenant has it',
    async () => {
      const summary = await madJson(['--org', 'acme', 'org', 'summary']);
      expect(summary).toMatchObject({
        slug: 'acme',
        jobs: { failed: '0', running: '0' },
        tenants: [{ schema: 'results', state: 'TENANT_STATE_READY' }],
        tenantsUnavailable: '',
      });
      expect(await madJson(['org', 'summary', '--all'])).toHaveLength(2);
      const [{ jobId }] = (await madJson(['--org', 'acme', 'job', 'list'])) as unknown as [{ jobId: string }];
      expect(await madJson(['--org', 'acme', 'job', 'show', jobId])).toMatchObject({
        jobId,
        state: 'JOB_STATE_COMPLETED',
        tenant: { availability: 'TENANT_AVAILABILITY_AVAILABLE', state: 'JOB_STATE_COMPLETED' },
        waiting: null,
      });
    },
    SLOW,
  );

  test(
    'down and reset',
    async () => {
      expect(await madJson(['down'])).toMatchObject({ stopped: true });
      expect(await madJson(['down'])).toMatchObject({ stopped: false });
      expect((await mad(['--url', 'http://127.0.0.1:1', 'health'])).code).toBe(6);
      expect(await madJson(['reset', '--yes'])).toMatchObject({ ok: true });
      expect(existsSync(home)).toBe(false);
      expect((await mad(['reset', '--yes'])).code).toBe(5);
    },
    SLOW,
  );
});
