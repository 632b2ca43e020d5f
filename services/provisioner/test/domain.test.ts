import { describe, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { databaseName, loginName, MAX_SCHEMA_LENGTH, migrationsText, templateName } from '../src/domain/names.ts';
import {
  firstStep,
  mayCleanUp,
  objectsOf,
  PLANS,
  stateAfter,
  stepAfter,
  type OperationKind,
} from '../src/domain/plan.ts';
import { ensureAnswer, freezeAnswer, resumeAnswer, suspendAnswer, TENANT_STATES } from '../src/domain/tenant-state.ts';

describe('plans', () => {
  test.each(Object.keys(PLANS) as OperationKind[])('%s goes through its steps once and ends', (kind) => {
    const seen: string[] = [];
    for (let step: ReturnType<typeof stepAfter> = firstStep(kind); step !== undefined; step = stepAfter(kind, step)) {
      seen.push(step);
    }
    expect(seen).toEqual(PLANS[kind].steps);
    expect(() => stepAfter(kind, kind === 'migrate' ? 'verify' : 'migrate')).toThrow(RangeError);
  });

  test('a restore gives a tenant back in the state it was in', () => {
    for (const state of ['ready', 'suspended', 'read_only']) expect(stateAfter('restore', { state })).toBe(state);
    // As it was noted by a release before.
    expect(stateAfter('restore', {})).toBe('ready');
    expect(stateAfter('freeze', { state: 'suspended' })).toBe('read_only');
    expect(stateAfter('backup', {})).toBeUndefined();
  });

  test('every object a tenant gets is named before it is made', () => {
    const key = { orgId: uuidv7(), schema: 'results' };
    const objects = objectsOf('provision', key, uuidv7());
    expect(objects.map(({ name }) => name).sort()).toEqual(
      [
        databaseName('results', key.orgId),
        loginName('results', key.orgId, 'a'),
        loginName('results', key.orgId, 'b'),
      ].sort(),
    );
    expect(objectsOf('migrate', key, uuidv7())).toEqual([]);
  });
});

describe('cleaning up', () => {
  const failed = { operation: 'failed', current: true, leased: false, endedMsAgo: 1_000 } as const;
  test('waits for the grace of a failed operation', () => {
    expect(mayCleanUp(failed, 1_000)).toBe(true);
    expect(mayCleanUp(failed, 1_001)).toBe(false);
  });
  test('never touches what a run holds', () => {
    for (const operation of ['running', 'succeeded', 'failed'] as const) {
      for (const current of [true, false]) {
        expect(mayCleanUp({ operation, current, leased: true, endedMsAgo: 1e9 }, 0)).toBe(false);
      }
    }
  });
  test('leaves a running operation alone while the tenant is its own', () => {
    expect(mayCleanUp({ operation: 'running', current: true, leased: false, endedMsAgo: 0 }, 0)).toBe(false);
    expect(mayCleanUp({ operation: 'running', current: false, leased: false, endedMsAgo: 0 }, 0)).toBe(true);
    expect(mayCleanUp({ operation: 'succeeded', current: true, leased: false, endedMsAgo: 0 }, 1e9)).toBe(true);
  });
});

describe('names', () => {
  test('fit into 63 bytes for the longest schema, and differ for different organizations', () => {
    const schema = 's'.repeat(MAX_SCHEMA_LENGTH);
    const [a, b] = [uuidv7(), uuidv7()];
    expect(loginName(schema, a, 'b').length).toBeLessThanOrEqual(63);
    expect(`${templateName(schema, 'f'.repeat(64))}_draft`.length).toBeLessThanOrEqual(63);
    expect(databaseName(schema, a)).not.toBe(databaseName(schema, b));
    expect(databaseName('results', a.toUpperCase())).toBe(databaseName('results', a));
  });
  test('are never made of anything but an id', () => {
    for (const bad of ['', 'x', `${uuidv7()}"; DROP DATABASE x; --`]) {
      expect(() => databaseName('results', bad)).toThrow(TypeError);
    }
  });
  test('migrations that differ in anything have different texts', () => {
    const one = { name: 'one', checksum: '1' };
    expect(migrationsText([one])).toBe(migrationsText([{ ...one }]));
    expect(migrationsText([one])).not.toBe(migrationsText([{ ...one, checksum: '2' }]));
    expect(migrationsText([one])).not.toBe(migrationsText([one, { name: 'two', checksum: '2' }]));
  });
});

describe('states', () => {
  test('an erased tenant is never made again, an existing one neither', () => {
    for (const state of TENANT_STATES) {
      const expected = ['erasing', 'erased'].includes(state)
        ? 'gone'
        : ['requested', 'creating', 'failed'].includes(state)
          ? 'make'
          : 'exists';
      expect(ensureAnswer(state)).toBe(expected);
    }
  });
  test('only what is whole and idle is suspended; only what is shut or read-only is resumed', () => {
    for (const state of TENANT_STATES) {
      for (const step of [null, 'migrate', 'close_connections', 'open_connections', 'close_writes', 'open_writes']) {
        if (suspendAnswer(state, step) === 'switch') {
          expect([state, step]).toEqual([expect.stringMatching(/^(ready|read_only)$/), null]);
        }
        if (freezeAnswer(state, step) === 'switch') {
          expect([state, step]).toEqual([expect.stringMatching(/^(ready|suspended)$/), null]);
        }
        if (resumeAnswer(state, step) === 'switch') {
          expect([state, step]).toEqual([expect.stringMatching(/^(suspended|read_only)$/), null]);
        }
      }
    }
    expect(suspendAnswer('creating', 'verify')).toBe('wait');
    expect(suspendAnswer('suspended', null)).toBe('nothing');
    expect(suspendAnswer('suspended', 'close_connections')).toBe('finish');
    expect(resumeAnswer('suspended', 'close_connections')).toBe('wait');
    expect(resumeAnswer('read_only', 'open_writes')).toBe('finish');
    expect(resumeAnswer('ready', null)).toBe('nothing');
    expect(freezeAnswer('read_only', null)).toBe('nothing');
    expect(freezeAnswer('read_only', 'open_connections')).toBe('wait');
    expect(freezeAnswer('moving', null)).toBe('wait');
    expect(freezeAnswer('erased', null)).toBe('nothing');
  });
  test('what is shut is shut, whatever else is done with it; what is restored may have to be resumed', () => {
    for (const step of ['write_archive', 'load_copy', 'renew_login']) {
      expect(suspendAnswer('suspended', step)).toBe('nothing');
      expect(freezeAnswer('read_only', step)).toBe('nothing');
      expect(resumeAnswer('suspended', step)).toBe('wait');
    }
    for (const step of ['open_writes', 'open_connections']) expect(suspendAnswer('suspended', step)).toBe('wait');
    expect(resumeAnswer('restoring', 'swap_in')).toBe('wait');
  });
});
