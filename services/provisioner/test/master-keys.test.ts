import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Code } from '@connectrpc/connect';
import { readEnv } from '@mad/process';
import { reasonOf } from '@mad/rpc';
import { readMasterKeys } from '../src/config.ts';
import { parseMasterKeys } from '../src/secrets/local-keys.ts';
import { inPlaceOf, sourceOf, type MasterKeys } from '../src/secrets/master-keys.ts';
import { remembered } from '../src/secrets/remembered-keys.ts';
import { vaultKeys } from '../src/secrets/vault-keys.ts';
import { TransitServer } from './transit-server.ts';

const PLAIN = randomBytes(32);
const AAD = 'mad data key 0 1';

/** A source in the suite's hands. */
interface Subject {
  keys(): MasterKeys;
  /** The next version seals from now on. */
  rotate(): void;
  /** Only the newest opens from now on. */
  retire(): void;
}

function masterKeysContract(name: string, start: () => Promise<Subject>): void {
  describe(`master keys: ${name}`, () => {
    let subject: Subject;
    beforeEach(async () => {
      subject = await start();
    });

    test('opens what it sealed, in the name it was sealed in, never twice in the same bytes', async () => {
      const sealed = await subject.keys().seal(PLAIN, AAD);
      expect(sealed.version).toBe(1);
      expect(sourceOf(sealed.sealed)).toBe(subject.keys().source);
      expect(sealed.sealed.length).toBeGreaterThanOrEqual(60);
      expect(sealed.sealed.length).toBeLessThanOrEqual(512);
      expect(sealed.sealed.includes(PLAIN)).toBe(false);
      expect((await subject.keys().seal(PLAIN, AAD)).sealed).not.toEqual(sealed.sealed);
      expect(await subject.keys().open(sealed, AAD)).toEqual(PLAIN);
    });

    test('opens nothing in the name of another', async () => {
      const sealed = await subject.keys().seal(PLAIN, AAD);
      const opening = subject.keys().open(sealed, 'mad data key 9 1');
      await expect(opening).rejects.toMatchObject({ name: 'MasterKeyError', fault: 'KEY_ALTERED' });
    });

    test('opens nothing that was changed, wherever it was', async () => {
      const { sealed, version } = await subject.keys().seal(PLAIN, AAD);
      for (let at = 0; at < sealed.length; at += 1) {
        const changed = Buffer.from(sealed);
        changed[at]! ^= 1;
        const opening = subject.keys().open({ sealed: changed, version }, AAD);
        await expect(opening).rejects.toMatchObject({ name: 'MasterKeyError' });
      }
      for (const cut of [sealed.subarray(0, sealed.length - 4), sealed.subarray(0, 9), Buffer.alloc(0)]) {
        const opening = subject.keys().open({ sealed: cut, version }, AAD);
        await expect(opening).rejects.toMatchObject({ name: 'MasterKeyError' });
      }
    });

    test('opens nothing of a version it does not have, or under another version than sealed it', async () => {
      const sealed = await subject.keys().seal(PLAIN, AAD);
      subject.rotate();
      await expect(subject.keys().open({ ...sealed, version: 7 }, AAD)).rejects.toMatchObject({
        name: 'MasterKeyError',
      });
      await expect(subject.keys().open({ ...sealed, version: 2 }, AAD)).rejects.toMatchObject({ fault: 'KEY_ALTERED' });
      subject.retire();
      const opening = subject.keys().open(sealed, AAD);
      await expect(opening).rejects.toMatchObject({ name: 'MasterKeyError', fault: 'KEY_VERSION_UNKNOWN' });
    });

    test('after a rotation the newest seals, the older still opens and is named as to be sealed anew', async () => {
      const before = await subject.keys().seal(PLAIN, AAD);
      const { source } = subject.keys();
      expect(await subject.keys().standing()).toEqual({ newest: `${source}:1`, older: [] });
      subject.rotate();
      subject.rotate();
      expect(await subject.keys().standing()).toEqual({ newest: `${source}:3`, older: [`${source}:2`, `${source}:1`] });
      const opened = await subject.keys().open(before, AAD);
      expect(opened).toEqual(PLAIN);
      const anew = await subject.keys().seal(opened, AAD);
      expect(anew.version).toBe(3);
      subject.retire();
      expect(await subject.keys().open(anew, AAD)).toEqual(PLAIN);
      expect(await subject.keys().standing()).toEqual({ newest: `${source}:3`, older: [] });
    });
  });
}

masterKeysContract('in the settings', async () => {
  let keys = [randomBytes(32).toString('base64')];
  let first = 1;
  return {
    keys: () =>
      parseMasterKeys(
        keys
          .map((key, index) => `${first + index}:${key}`)
          .reverse()
          .join(','),
      ),
    rotate: () => void keys.push(randomBytes(32).toString('base64')),
    retire: () => {
      first += keys.length - 1;
      keys = keys.slice(-1);
    },
  };
});

let folder: string;
let server: TransitServer;
const vault = (timeoutMs = 2_000): MasterKeys =>
  vaultKeys({ url: server.url, mount: 'transit', key: 'mad', tokenPath: join(folder, 'token'), timeoutMs });

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mad-token-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function startVault(): Promise<void> {
  server = new TransitServer();
  await server.start();
  await writeFile(join(folder, 'token'), `${server.token}\n`);
}
afterEach(() => server?.stop());

masterKeysContract('in a key service', async () => {
  await startVault();
  return {
    keys: () => vault(),
    rotate: () => server.rotate(),
    retire: () => void (server.oldest = server.versions),
  };
});

describe('a key service', () => {
  beforeEach(startVault);

  const failure = async (call: Promise<unknown>): Promise<{ code?: Code; rawMessage?: string; reason?: string }> => {
    const error: unknown = await call.then(
      () => new Error('nothing failed'),
      (thrown: unknown) => thrown,
    );
    const { code, rawMessage } = error as { code?: Code; rawMessage?: string };
    return { code, rawMessage, reason: reasonOf(error) };
  };
  const says = (what: string): object => ({
    code: Code.Unavailable,
    reason: 'KEY_SERVICE_UNAVAILABLE',
    rawMessage: `the key service (Vault Transit, key mad) ${what}`,
  });

  test('that is away is named, after what may pass was tried again', async () => {
    const sealed = await vault().seal(PLAIN, AAD);
    server.failures.push(503, 429, 412);
    expect(await vault().open(sealed, AAD)).toEqual(PLAIN);
    await server.stop();
    expect(await failure(vault(300).seal(PLAIN, AAD))).toEqual(says('does not answer'));
    expect(await failure(vault(300).open(sealed, AAD))).toEqual(says('does not answer'));
    expect(await failure(vault(300).standing())).toEqual(says('does not answer'));
  });

  test('that accepts connections and is silent is given up in time', async () => {
    server.silent = true;
    const began = performance.now();
    expect(await failure(vault(300).seal(PLAIN, AAD))).toEqual(says('does not answer'));
    expect(performance.now() - began).toBeLessThan(10_000);
  });

  test('that refuses the token is asked once only, and with the renewed token again; the token is in no error', async () => {
    const old = server.token;
    server.token = 'renewed';
    const said = await failure(vault().seal(PLAIN, AAD));
    expect(said).toEqual(says('refuses the token'));
    expect(server.asked).toHaveLength(1);
    const error: unknown = await vault()
      .seal(PLAIN, AAD)
      .catch((thrown: unknown) => thrown);
    expect(inspect(error, { depth: 9 })).not.toContain(old);
    await writeFile(join(folder, 'token'), 'renewed');
    expect((await vault().seal(PLAIN, AAD)).version).toBe(1);
    await rm(join(folder, 'token'));
    expect(await failure(vault().seal(PLAIN, AAD))).toEqual(says('cannot be asked: its token cannot be read'));
  });

  test.each([
    [{ exportable: true }, 'can be taken out of it'],
    [{ derived: true }, 'derives keys from a context'],
    [{ type: 'rsa-4096' }, 'is of the type rsa-4096'],
  ])('whose key is %p is not used', async (traits, message) => {
    Object.assign(server.traits, traits);
    await expect(vault().standing()).rejects.toThrow(message);
  });

  test('is asked once for what is remembered, for as long as it is, and never about what did not open', async () => {
    const keys = remembered(vault(300), 60_000);
    const sealed = await vault().seal(PLAIN, AAD);
    const opens = (): number => server.asked.filter((call) => call.includes('decrypt')).length;
    const all = await Promise.all([1, 2, 3].map(() => keys.open(sealed, AAD)));
    all[0]!.fill(0);
    expect(await keys.open(sealed, AAD)).toEqual(PLAIN);
    expect(opens()).toBe(1);
    await expect(keys.open(sealed, 'another')).rejects.toMatchObject({ fault: 'KEY_ALTERED' });
    await expect(keys.open(sealed, 'another')).rejects.toMatchObject({ fault: 'KEY_ALTERED' });
    expect(opens()).toBe(3);
    const own = await keys.seal(PLAIN, AAD);
    await server.stop();
    expect(await keys.open(sealed, AAD)).toEqual(PLAIN);
    expect(await keys.open(own, AAD)).toEqual(PLAIN);
    const brief = remembered(vault(300), 1);
    expect(await failure(brief.open(sealed, AAD))).toEqual(says('does not answer'));
  });

  test('takes over what keys in the settings sealed, and gives it back', async () => {
    const local = parseMasterKeys(randomBytes(32).toString('base64'));
    const before = await local.seal(PLAIN, AAD);
    const now = inPlaceOf(local, vault());
    expect(await now.standing()).toEqual({ newest: 'vault:1', older: ['local:1'] });
    expect(await now.open(before, AAD)).toEqual(PLAIN);
    const after = await now.seal(PLAIN, AAD);
    expect(sourceOf(after.sealed)).toBe('vault');
    const back = inPlaceOf(vault(), local);
    expect(await back.standing()).toEqual({ newest: 'local:1', older: ['vault:1'] });
    expect(await back.open(after, AAD)).toEqual(PLAIN);
    await expect(local.open(after, AAD)).rejects.toMatchObject({ fault: 'KEY_VERSION_UNKNOWN' });
  });
});

test('settings say which source seals, and name what is missing or unsafe', () => {
  const key = randomBytes(32).toString('base64');
  const read = (env: Record<string, string>): string => {
    try {
      return readEnv(env, readMasterKeys).source;
    } catch (error) {
      return (error as Error).message.replaceAll('\n', '');
    }
  };
  const there = { PROVISIONER_VAULT_URL: 'https://vault.example:8200', PROVISIONER_VAULT_TOKEN_PATH: '/run/token' };
  expect(read({ PROVISIONER_MASTER_KEY: key })).toBe('local');
  expect(read(there)).toBe('vault');
  expect(read({ ...there, PROVISIONER_MASTER_KEY: key })).toBe('vault');
  expect(read({ ...there, PROVISIONER_MASTER_KEY: key, PROVISIONER_KEY_SOURCE: 'local' })).toBe('local');
  expect(read({})).toContain('PROVISIONER_MASTER_KEY');
  expect(read({ ...there, PROVISIONER_KEY_SOURCE: 'local' })).toContain('PROVISIONER_MASTER_KEY: is required with');
  expect(read({ PROVISIONER_MASTER_KEY: key, PROVISIONER_KEY_SOURCE: 'vault' })).toContain('PROVISIONER_VAULT_URL');
  expect(read({ PROVISIONER_VAULT_URL: 'https://vault.example' })).toContain('PROVISIONER_VAULT_TOKEN_PATH');
  expect(read({ ...there, PROVISIONER_VAULT_URL: 'http://vault.example' })).toContain('must be https');
  expect(read({ ...there, PROVISIONER_VAULT_KEY: '../sys' })).toContain('PROVISIONER_VAULT_KEY');
});
