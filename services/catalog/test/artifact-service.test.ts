import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Code, type Client } from '@connectrpc/connect';
import { createLeaseSigner, generateSigningKey } from '@mad/auth';
import { MINUTE_MS, SECOND_MS, uuidv7 } from '@mad/process';
import { ArtifactPurpose, ArtifactService } from '@mad/proto/catalog';
import { reasonOf, violationsOf } from '@mad/rpc';
import { testServiceKey } from '@mad/testing';
import { errorOf } from './errors.ts';
import { startTestCatalog, type TestCatalog } from './harness.ts';
import { organization } from './neighbours.ts';

const HOST = new URL('../../../examples/beta-cyclodextrin.pdbqt', import.meta.url);

let catalog: TestCatalog;
let acme: Client<typeof ArtifactService>;
let worker: Client<typeof ArtifactService>;
let host: string;
beforeAll(async () => {
  catalog = await startTestCatalog();
  acme = await catalog.member(ArtifactService, catalog.acme);
  worker = await catalog.service(ArtifactService, 'worker');
  host = await readFile(HOST, 'utf8');
});
afterAll(() => catalog.close());

const ofAcme = () => ({ orgId: catalog.acme.orgId, requestId: uuidv7() });
const RECEPTOR = { purpose: ArtifactPurpose.RECEPTOR, name: 'β-cyclodextrin' };
const OTHER = { purpose: ArtifactPurpose.OTHER, name: 'notes' };

async function leaseOf(orgId: string, leftMs = MINUTE_MS, key?: Awaited<ReturnType<typeof generateSigningKey>>) {
  const { privateJwk } = key ?? (await testServiceKey('catalog'));
  const lease = { orgId, taskExecutionId: uuidv7(), attempt: 1, worker: 'w1' };
  return createLeaseSigner(privateJwk)(lease, new Date(Date.now() + leftMs));
}

describe('a receptor', () => {
  test('is kept in canonical form: files that differ in remarks and line ends are one artifact', async () => {
    const first = await acme.createArtifact({ ...ofAcme(), ...RECEPTOR, content: Buffer.from(host) });
    const other = `REMARK  from elsewhere\r\n${host.replaceAll('\n', '\r\n')}`;
    const again = await acme.createArtifact({ ...ofAcme(), ...RECEPTOR, name: 'copy', content: Buffer.from(other) });
    expect(again.artifact).toEqual(first.artifact);
    expect(first.artifact).toMatchObject({ name: 'β-cyclodextrin', contentType: 'chemical/x-pdbqt' });
    const { artifactId } = first.artifact!;
    const { content } = await acme.downloadArtifact({ orgId: catalog.acme.orgId, artifactId });
    expect(createHash('sha256').update(content).digest('hex')).toBe(first.artifact!.sha256);
    expect(Buffer.from(content).toString()).toMatch(/^(ATOM  |HETATM)/);
    expect(Buffer.from(content).toString()).not.toContain('REMARK');
  });

  test('that is none is refused by its lines', async () => {
    const lines = host.split('\n').filter((line) => /^(ATOM|HETATM)/.test(line));
    lines[1] = lines[1]!.replace(/^(.{30}).{8}/, '$1   nan  ');
    lines[2] = 'BRANCH 1 2';
    const error = await errorOf(
      acme.createArtifact({ ...ofAcme(), ...RECEPTOR, content: Buffer.from(lines.join('\n')) }),
    );
    expect(error.code).toBe(Code.InvalidArgument);
    expect(violationsOf(error)).toMatchObject([
      { field: 'content', description: expect.stringContaining('line 2: x') },
      { field: 'content', description: expect.stringContaining('line 3: BRANCH') },
    ]);
  });

  test.each([
    ['no atoms', Buffer.from('REMARK nothing\n')],
    ['binary', Buffer.from([0, 255, 1, 2])],
    ['SQL', Buffer.from(`'; DROP TABLE catalog.artifacts; --`)],
  ])('of %s is refused', async (_what, content) => {
    const error = await errorOf(acme.createArtifact({ ...ofAcme(), ...RECEPTOR, content }));
    expect(violationsOf(error).map(({ field }) => field)).toContain('content');
  });
});

describe('artifacts', () => {
  test('have names of any letters, and content types', async () => {
    const name = `'); DROP TABLE catalog.artifacts; --`;
    const content = Buffer.from('text');
    const { artifact } = await acme.createArtifact({ ...ofAcme(), ...OTHER, name, contentType: 'text/plain', content });
    expect(artifact).toMatchObject({ name, contentType: 'text/plain', sizeBytes: 4n });
    const { artifactId } = artifact!;
    expect((await acme.getArtifact({ orgId: catalog.acme.orgId, artifactId })).artifact).toEqual(artifact);
    const error = await errorOf(acme.createArtifact({ ...ofAcme(), ...OTHER, contentType: 'text\r\nx: y', content }));
    expect(violationsOf(error).map(({ field }) => field)).toEqual(['content_type']);
  });

  test('are listed newest first, page by page; a token of another organization is refused', async () => {
    const made: string[] = [];
    for (let index = 0; index < 3; index++) {
      const content = Buffer.from(`content ${index}`);
      made.unshift((await acme.createArtifact({ ...ofAcme(), ...OTHER, content })).artifact!.artifactId);
    }
    const { orgId } = catalog.acme;
    const first = await acme.listArtifacts({ orgId, pageSize: 2 });
    const second = await acme.listArtifacts({ orgId, pageSize: 1, pageToken: first.nextPageToken });
    expect([...first.artifacts, ...second.artifacts].map((one) => one.artifactId)).toEqual(made);
    const globex = await catalog.member(ArtifactService, catalog.globex);
    const theirs = globex.listArtifacts({ orgId: catalog.globex.orgId, pageToken: first.nextPageToken });
    expect(violationsOf(await errorOf(theirs)).map(({ field }) => field)).toEqual(['page_token']);
  });

  test('beyond the quota are refused and leave no object behind', async () => {
    const small = organization();
    small.quotas!.maxStorageBytes = 10n;
    catalog.identity.organizations.set(small.orgId, small);
    const client = await catalog.member(ArtifactService, small);
    const put = (content: string) =>
      client.createArtifact({ orgId: small.orgId, requestId: uuidv7(), ...OTHER, content: Buffer.from(content) });
    await put('12345678');
    await put('12345678');
    const error = await errorOf(put('abc'));
    expect([error.code, reasonOf(error)]).toEqual([Code.ResourceExhausted, 'QUOTA_EXCEEDED']);
    const sha256 = createHash('sha256').update('abc').digest('hex');
    const object = new URL(`${catalog.config.objectStoreUrl}/orgs/${small.orgId}/artifacts/${sha256}`);
    await expect(readFile(object)).rejects.toThrow('ENOENT');
  });

  test('over 3 MiB are refused', async () => {
    const error = await errorOf(acme.createArtifact({ ...ofAcme(), ...OTHER, content: new Uint8Array(3_145_729) }));
    expect(violationsOf(error).map(({ field }) => field)).toEqual(['content']);
  });

  test('say nothing to whoever has the disk', async () => {
    const content = Buffer.from('a pocket that nobody else knows');
    const { artifact } = await acme.createArtifact({ ...ofAcme(), ...OTHER, content });
    const { orgId } = catalog.acme;
    const object = new URL(`${catalog.config.objectStoreUrl}/orgs/${orgId}/artifacts/${artifact!.sha256}`);
    expect((await readFile(object)).includes('pocket')).toBe(false);
    const { artifactId } = artifact!;
    expect(Buffer.from((await acme.downloadArtifact({ orgId, artifactId })).content)).toEqual(content);
  });

  test('whose object was altered are not given out', async () => {
    const { orgId } = catalog.acme;
    const { artifact } = await acme.createArtifact({ ...ofAcme(), ...OTHER, content: Buffer.from('true') });
    const { artifactId } = artifact!;
    await catalog.admin.query(`UPDATE catalog.artifacts SET sha256 = repeat('0', 64) WHERE artifact_id = $1`, [
      artifactId,
    ]);
    const error = await errorOf(acme.downloadArtifact({ orgId, artifactId }));
    expect([error.code, error.rawMessage]).toEqual([Code.Internal, 'internal error']);
  });
});

describe('a worker', () => {
  let artifactId: string;
  beforeAll(async () => {
    const { artifact } = await acme.createArtifact({ ...ofAcme(), ...RECEPTOR, content: Buffer.from(host) });
    artifactId = artifact!.artifactId;
  });

  test('reads with a lease of the organization', async () => {
    const { orgId } = catalog.acme;
    const read = await worker.readArtifact({ orgId, artifactId, leaseToken: await leaseOf(orgId) });
    expect(createHash('sha256').update(read.content).digest('hex')).toBe(read.sha256);
  });

  test('reads nothing with another lease', async () => {
    const { orgId } = catalog.acme;
    const foreign = await generateSigningKey();
    const cases = [
      [await leaseOf(orgId, -SECOND_MS), Code.FailedPrecondition, 'LEASE_LOST'],
      [await leaseOf(catalog.globex.orgId), Code.PermissionDenied, 'TOKEN_INVALID'],
      [await leaseOf(orgId, MINUTE_MS, foreign), Code.PermissionDenied, 'TOKEN_INVALID'],
      ['no lease', Code.PermissionDenied, 'TOKEN_INVALID'],
    ] as const;
    for (const [leaseToken, code, reason] of cases) {
      const error = await errorOf(worker.readArtifact({ orgId, artifactId, leaseToken }));
      expect([error.code, reasonOf(error)]).toEqual([code, reason]);
    }
  });

  test('finds no artifact of another organization with a lease of its own', async () => {
    const { orgId } = catalog.globex;
    const error = await errorOf(worker.readArtifact({ orgId, artifactId, leaseToken: await leaseOf(orgId) }));
    expect(error.code).toBe(Code.NotFound);
  });

  test('only: another service and a user are turned away', async () => {
    const { orgId } = catalog.acme;
    const request = { orgId, artifactId, leaseToken: await leaseOf(orgId) };
    const results = await catalog.service(ArtifactService, 'results');
    expect((await errorOf(results.readArtifact(request))).code).toBe(Code.PermissionDenied);
    expect((await errorOf(acme.readArtifact(request))).code).toBe(Code.Unauthenticated);
    expect((await errorOf(worker.getArtifact(request))).code).toBe(Code.Unauthenticated);
  });
});
