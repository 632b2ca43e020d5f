import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { DescService } from '@bufbuild/protobuf';
import * as catalog from '@mad/proto/catalog';
import * as identity from '@mad/proto/identity';
import * as provisioner from '@mad/proto/provisioner';
import * as results from '@mad/proto/results';
import { bindingsOf } from '../src/rest/binding.ts';
import { parsePathTemplate } from '../src/rest/path-template.ts';
import { SegmentTrie } from '../src/rest/segment-trie.ts';

const trie = (...templates: [method: string, path: string][]) => {
  const found = new SegmentTrie<string>();
  for (const [method, path] of templates) found.add(method, parsePathTemplate(path), `${method} ${path}`);
  return found;
};

describe('path templates', () => {
  test('variables, patterns and verbs', () => {
    expect(parsePathTemplate('/v1/{name=projects/*/jobs/*}/files/{path=**}:copy')).toEqual({
      segments: ['v1', 'projects', '*', 'jobs', '*', 'files', '**'],
      verb: 'copy',
      variables: [
        { field: 'name', start: 1, end: 5, spansSegments: true },
        { field: 'path', start: 6, end: 7, spansSegments: true },
      ],
    });
  });

  test.each(['v1/x', '/v1//x', '/v1/{Bad Name}', '/v1/{a=**}/x'])('%s is refused when the gateway starts', (path) => {
    expect(() => parsePathTemplate(path)).toThrow(path);
  });
});

describe('the segment trie', () => {
  const routes = trie(
    ['GET', '/v1/organizations/{org_id}/jobs/{job_id}'],
    ['POST', '/v1/organizations/{org_id}/jobs/{job_id}:cancel'],
    ['GET', '/v1/organizations/{org_id}/jobs/newest'],
    ['GET', '/v1/organizations/{org_id}/files/{path=**}'],
    ['PATCH', '/v1/organizations/{org_id}'],
  );
  const find = (method: string, path: string) => routes.find(method, path);

  test('tells an id from an id with a verb', () => {
    expect(find('GET', '/v1/organizations/a/jobs/b')).toMatchObject({
      value: 'GET /v1/organizations/{org_id}/jobs/{job_id}',
    });
    expect(find('POST', '/v1/organizations/a/jobs/b:cancel')).toMatchObject({
      segments: ['v1', 'organizations', 'a', 'jobs', 'b'],
    });
  });

  test('a colon that names no verb belongs to the id', () => {
    expect(find('GET', '/v1/organizations/a/jobs/b:c')).toMatchObject({
      segments: ['v1', 'organizations', 'a', 'jobs', 'b:c'],
    });
  });

  test('a literal wins over a variable, and gives way where it leads nowhere', () => {
    expect(find('GET', '/v1/organizations/a/jobs/newest')).toMatchObject({ value: expect.stringContaining('newest') });
    const back = trie(['GET', '/a/b/c'], ['GET', '/a/{x}/d']);
    expect(back.find('GET', '/a/b/d')).toMatchObject({ value: 'GET /a/{x}/d' });
  });

  test('an encoded slash stays inside its segment', () => {
    expect(find('GET', '/v1/organizations/a%2Fb/jobs/c')).toMatchObject({
      segments: ['v1', 'organizations', 'a%2Fb', 'jobs', 'c'],
    });
  });

  test('says which methods a path has', () => {
    expect(find('DELETE', '/v1/organizations/a')).toEqual({ allow: ['PATCH'] });
    expect(find('GET', '/v1/nothing')).toBeUndefined();
    expect(find('GET', '/v1/organizations//jobs/b')).toBeUndefined();
  });

  test('two routes for one path are a mistake in the contracts', () => {
    expect(() => trie(['GET', '/a/{x}'], ['GET', '/a/{y}'])).toThrow('two routes');
  });

  test('whatever the path, it answers', () => {
    fc.assert(fc.property(fc.string(), fc.string(), (method, path) => void find(method, `/${path}`)));
  });

  test('every path of a template finds its route', () => {
    const segment = fc.stringMatching(/^[a-z0-9._~%-]{1,12}$/);
    fc.assert(
      fc.property(segment, segment, (org, job) => {
        fc.pre(job !== 'newest');
        expect(find('GET', `/v1/organizations/${org}/jobs/${job}`)).toMatchObject({
          value: 'GET /v1/organizations/{org_id}/jobs/{job_id}',
        });
      }),
    );
  });
});

test('every annotation of the contracts can be served', () => {
  const contracts = [identity, catalog, results, provisioner].flatMap((contract) => Object.values<unknown>(contract));
  const services = contracts.filter((value): value is DescService => (value as DescService | null)?.kind === 'service');
  const routes = new SegmentTrie<string>();
  const bindings = services.flatMap(bindingsOf);
  for (const { httpMethod, template, path } of bindings) routes.add(httpMethod, template, path);
  expect(bindings.length).toBeGreaterThan(40);
});
