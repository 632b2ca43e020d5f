import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { describe, expect, test } from '@jest/globals';
import { InvalidKeyError, ObjectNotFoundError, type ObjectStore } from '@mad/object-store';

/** What every store must do; each adapter's test calls it with a store of its own. */
export function objectStoreContract(name: string, open: () => Promise<ObjectStore>): void {
  describe(name, () => {
    test('gives back what was put, whole and streamed', async () => {
      const store = await open();
      const content = Uint8Array.from({ length: 200_000 }, (_, index) => index % 251);
      expect(await store.putIfAbsent('orgs/a/artifacts/one', content)).toBe(true);
      expect(Buffer.from(await store.get('orgs/a/artifacts/one')).equals(content)).toBe(true);
      const streamed = await buffer(await store.stream('orgs/a/artifacts/one'));
      expect(streamed.equals(content)).toBe(true);
    });

    test('gives back a part, and no part that is not there', async () => {
      const store = await open();
      await store.putIfAbsent('x/parts', Buffer.from('0123456789'));
      expect(Buffer.from(await store.getRange('x/parts', 3, 4)).toString()).toBe('3456');
      await expect(store.getRange('x/parts', 8, 3)).rejects.toThrow(RangeError);
      await expect(store.getRange('x/none', 0, 1)).rejects.toThrow(ObjectNotFoundError);
    });

    test('keeps streamed content of any size, and nothing of content that failed', async () => {
      const store = await open();
      const piece = Buffer.alloc(100_000, 5);
      expect(await store.putStreamIfAbsent('x/streamed', Readable.from(Array.from({ length: 30 }, () => piece)))).toBe(
        true,
      );
      expect((await store.get('x/streamed')).length).toBe(3_000_000);
      expect(await store.putStreamIfAbsent('x/streamed', Readable.from([piece]))).toBe(false);
      expect((await store.get('x/streamed')).length).toBe(3_000_000);
      const broken = Readable.from(
        (function* () {
          yield piece;
          throw new Error('the source broke');
        })(),
      );
      await expect(store.putStreamIfAbsent('x/broken', broken)).rejects.toThrow('the source broke');
      expect(await store.exists('x/broken')).toBe(false);
    });

    test('a key keeps its first content', async () => {
      const store = await open();
      expect(await store.putIfAbsent('x/one', Buffer.from('first'))).toBe(true);
      expect(await store.putIfAbsent('x/one', Buffer.from('second'))).toBe(false);
      expect(Buffer.from(await store.get('x/one')).toString()).toBe('first');
    });

    test('writers of one key at the same time leave one whole object', async () => {
      const store = await open();
      const content = Buffer.alloc(500_000, 7);
      await Promise.all(Array.from({ length: 8 }, async () => store.putIfAbsent('x/race', content)));
      expect(Buffer.from(await store.get('x/race')).equals(content)).toBe(true);
    });

    test('an absent object is ObjectNotFoundError, and deleting it is nothing', async () => {
      const store = await open();
      await expect(store.get('x/none')).rejects.toThrow(ObjectNotFoundError);
      await expect(store.stream('x/none')).rejects.toThrow(ObjectNotFoundError);
      expect(await store.exists('x/none')).toBe(false);
      await store.delete('x/none');
    });

    test('lists what is right below a folder, sorted', async () => {
      const store = await open();
      for (const key of ['y/b', 'y/a', 'y/deeper/c', 'z/d']) await store.putIfAbsent(key, Buffer.from(key));
      expect(await store.list('y')).toEqual(['y/a', 'y/b']);
      expect(await store.list('none')).toEqual([]);
    });

    test('walks through everything below a folder, and through nothing beside it', async () => {
      const store = await open();
      const keys = ['w/a', 'w/deep/b', 'w/deep/deeper/c', 'w2/d'];
      for (const key of keys) await store.putIfAbsent(key, Buffer.from(key));
      expect((await Array.fromAsync(store.walk('w'))).sort()).toEqual(['w/a', 'w/deep/b', 'w/deep/deeper/c']);
      expect(await Array.fromAsync(store.walk('none'))).toEqual([]);
    });

    test('a deleted object is gone', async () => {
      const store = await open();
      await store.putIfAbsent('x/gone', Buffer.from('content'));
      expect(await store.exists('x/gone')).toBe(true);
      await store.delete('x/gone');
      expect(await store.exists('x/gone')).toBe(false);
    });

    test.each([
      '',
      '/',
      '/etc/passwd',
      '..',
      '../secret',
      'a/../../secret',
      'a/./b',
      'a//b',
      'a/',
      'a\\..\\b',
      'a\0b',
      '%2e%2e/secret',
      'a b',
      'é',
      '.hidden',
      'a'.repeat(513),
    ])('refuses the key %j in every method', async (key) => {
      const store = await open();
      await expect(store.putIfAbsent(key, Buffer.from('x'))).rejects.toThrow(InvalidKeyError);
      await expect(store.putStreamIfAbsent(key, Readable.from(['x']))).rejects.toThrow(InvalidKeyError);
      await expect(store.get(key)).rejects.toThrow(InvalidKeyError);
      await expect(store.stream(key)).rejects.toThrow(InvalidKeyError);
      await expect(store.exists(key)).rejects.toThrow(InvalidKeyError);
      await expect(store.list(key)).rejects.toThrow(InvalidKeyError);
      await expect(Array.fromAsync(store.walk(key))).rejects.toThrow(InvalidKeyError);
      await expect(store.delete(key)).rejects.toThrow(InvalidKeyError);
    });
  });
}
