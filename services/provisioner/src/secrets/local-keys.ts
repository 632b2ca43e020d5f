import { open, seal } from './aead.ts';
import { MasterKeyError, sourceOf, type MasterKeys } from './master-keys.ts';

const KEY_BYTES = 32;

/**
 * Reads `PROVISIONER_MASTER_KEY`: 32 bytes in base64 (that is version 1), or several as `2:<base64>,1:<base64>` while
 * the key is being changed. Throws an Error that does not repeat the value.
 */
export function parseMasterKeys(text: string): MasterKeys {
  const keys = new Map<number, Buffer>();
  for (const part of text.split(',')) {
    const [, versionText, encoded] = /^(?:([1-9]\d{0,8}):)?([A-Za-z0-9+/_=-]+)$/.exec(part.trim()) ?? [];
    const key = Buffer.from(encoded ?? '', 'base64');
    if (key.length !== KEY_BYTES) throw new Error('must be 32 bytes in base64, or such keys as 2:…,1:…');
    const version = Number(versionText ?? '1');
    if (keys.has(version)) throw new Error(`names version ${version} twice`);
    keys.set(version, key);
  }
  const newest = Math.max(...keys.keys());
  const older = [...keys.keys()].filter((version) => version !== newest).map((version) => `local:${version}`);
  return {
    source: 'local',
    seal: async (plain, aad) => ({ sealed: seal(keys.get(newest)!, plain, aad), version: newest }),
    async open({ sealed, version }, aad) {
      if (sourceOf(sealed) !== 'local') {
        throw new MasterKeyError('KEY_VERSION_UNKNOWN', 'a key service sealed it, and none is configured');
      }
      const key = keys.get(version);
      if (key === undefined) {
        throw new MasterKeyError('KEY_VERSION_UNKNOWN', `the master key of version ${version} is not configured`);
      }
      try {
        return open(key, sealed, aad);
      } catch (cause) {
        throw new MasterKeyError('KEY_ALTERED', `it does not open under the master key ${version}`, { cause });
      }
    },
    standing: async () => ({ newest: `local:${newest}`, older }),
  };
}
