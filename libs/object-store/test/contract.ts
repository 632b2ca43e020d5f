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

    test('gives back nothing of what is empty', async () => {
      const store = await open();
      expect(await store.putIfAbsent('orgs/a/x/empty', Buffer.alloc(0))).toBe(true);
      expect(await store.get('orgs/a/x/empty')).toHaveLength(0);
      expect(await buffer(await store.stream('orgs/a/x/empty'))).toHaveLength(0);
    });

    test('gives back a part, and less where the content ends', async () => {
      const store = await open();
      await store.putIfAbsent('orgs/a/x/parts', Buffer.from('0123456789'));
      expect(Buffer.from(await store.getRange('orgs/a/x/parts', 3, 4)).toString()).toBe('3456');
      expect(Buffer.from(await store.getRange('orgs/a/x/parts', 8, 3)).toString()).toBe('89');
      expect(await store.getRange('orgs/a/x/parts', 50, 3)).toHaveLength(0);
      expect(await store.getRange('orgs/a/x/parts', 3, 0)).toHaveLength(0);
      await expect(store.getRange('orgs/a/x/none', 0, 1)).rejects.toThrow(ObjectNotFoundError);
    });

    test('keeps streamed content of any size, and nothing of content that failed', async () => {
      const store = await open();
      const piece = Buffer.alloc(100_000, 5);
      expect(
        await store.putStreamIfAbsent('orgs/a/x/streamed', Readable.from(Array.from({ length: 30 }, () => piece))),
      ).toBe(true);
      expect((await store.get('orgs/a/x/streamed')).length).toBe(3_000_000);
      expect(await store.putStreamIfAbsent('orgs/a/x/streamed', Readable.from([piece]))).toBe(false);
      expect((await store.get('orgs/a/x/streamed')).length).toBe(3_000_000);
      const broken = Readable.from(
        (function* () {
          yield piece;
          throw new Error('the source broke');
        })(),
      );
      await expect(store.putStreamIfAbsent('orgs/a/x/broken', broken)).rejects.toThrow('the source broke');
      expect(await store.exists('orgs/a/x/broken')).toBe(false);
    });

    test('content that fails before it is read is refused with its own error', async () => {
      const store = await open();
      const content = Readable.from(
        (function* () {
          yield Buffer.from('x');
        })(),
      );
      const put = store.putStreamIfAbsent('orgs/a/x/at-once', content);
      // Where nobody listens yet it is the process that ends.
      expect(content.listenerCount('error')).toBeGreaterThan(0);
      content.destroy(new Error('the source broke at once'));
      await expect(put).rejects.toThrow('the source broke at once');
      expect(await store.exists('orgs/a/x/at-once')).toBe(false);
    });

    test('a key keeps its first content', async () => {
      const store = await open();
      expect(await store.putIfAbsent('orgs/a/x/one', Buffer.from('first'))).toBe(true);
      expect(await store.putIfAbsent('orgs/a/x/one', Buffer.from('second'))).toBe(false);
      expect(Buffer.from(await store.get('orgs/a/x/one')).toString()).toBe('first');
    });

    test('writers of one key at the same time leave one whole object', async () => {
      const store = await open();
      const content = Buffer.alloc(500_000, 7);
      await Promise.all(Array.from({ length: 8 }, async () => store.putIfAbsent('orgs/a/x/race', content)));
      expect(Buffer.from(await store.get('orgs/a/x/race')).equals(content)).toBe(true);
    });

    test('an absent object is ObjectNotFoundError, and deleting it is nothing', async () => {
      const store = await open();
      await expect(store.get('orgs/a/x/none')).rejects.toThrow(ObjectNotFoundError);
      await expect(store.stream('orgs/a/x/none')).rejects.toThrow(ObjectNotFoundError);
      expect(await store.exists('orgs/a/x/none')).toBe(false);
      await store.delete('orgs/a/x/none');
    });

    test('lists what is right below a folder, sorted', async () => {
      const store = await open();
      for (const key of ['orgs/a/y/b', 'orgs/a/y/a', 'orgs/a/y/deeper/c', 'orgs/a/z/d'])
        await store.putIfAbsent(key, Buffer.from(key));
      expect(await store.list('orgs/a/y')).toEqual(['orgs/a/y/a', 'orgs/a/y/b']);
      expect(await store.list('none')).toEqual([]);
    });

    test('walks through everything below a folder, and through nothing beside it', async () => {
      const store = await open();
      const keys = ['orgs/a/w/a', 'orgs/a/w/deep/b', 'orgs/a/w/deep/deeper/c', 'orgs/a/w2/d'];
      for (const key of keys) await store.putIfAbsent(key, Buffer.from(key));
      expect((await Array.fromAsync(store.walk('orgs/a/w'))).sort()).toEqual([
        'orgs/a/w/a',
        'orgs/a/w/deep/b',
        'orgs/a/w/deep/deeper/c',
      ]);
      expect(await Array.fromAsync(store.walk('none'))).toEqual([]);
    });

    test('a deleted object is gone', async () => {
      const store = await open();
      await store.putIfAbsent('orgs/a/x/gone', Buffer.from('content'));
      expect(await store.exists('orgs/a/x/gone')).toBe(true);
      await store.delete('orgs/a/x/gone');
      expect(await store.exists('orgs/a/x/gone')).toBe(false);
    });

    test('the name of a deleted object may be used again', async () => {
      const store = await open();
      for (const content of ['one', 'two']) {
        await store.putIfAbsent('orgs/a/x/again', Buffer.from(content));
        expect(Buffer.from(await store.getRange('orgs/a/x/again', 0, 3)).toString()).toBe(content);
        await store.delete('orgs/a/x/again');
      }
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
