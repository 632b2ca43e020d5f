import { LRUCache } from 'lru-cache';
import type { MasterKeys, Sealed } from './master-keys.ts';

const MAX_REMEMBERED = 20_000;

/**
 * Remembers in memory what a key service opened, so that tenants in use stay reachable while it is away, and it is not
 * asked for every route. So long, too, this process opens what the service would refuse by now.
 */
export function remembered(keys: MasterKeys, keepMs: number): MasterKeys {
  /** In use or in the making, by what was opened and in whose name. */
  const opened = new LRUCache<string, Promise<Buffer>>({ max: MAX_REMEMBERED, ttl: keepMs });
  const nameOf = ({ sealed, version }: Sealed, aad: string): string => `${version} ${sealed.toString('base64')} ${aad}`;
  return {
    source: keys.source,
    async seal(plain, aad) {
      const sealed = await keys.seal(plain, aad);
      opened.set(nameOf(sealed, aad), Promise.resolve(Buffer.from(plain)));
      return sealed;
    },
    async open(sealed, aad) {
      const name = nameOf(sealed, aad);
      let opening = opened.get(name);
      if (opening === undefined) {
        opening = keys.open(sealed, aad);
        opened.set(name, opening);
        const asked = opening;
        asked.catch(() => {
          if (opened.peek(name) === asked) opened.delete(name);
        });
      }
      return Buffer.from(await opening);
    },
    standing: () => keys.standing(),
  };
}
