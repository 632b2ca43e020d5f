/** Where the keys are that seal data keys, servers' passwords and the metadata's archives. */
export type KeySource = 'local' | 'vault';

/** Something sealed under the master key of a version. */
export interface Sealed {
  sealed: Buffer;
  version: number;
}

/** What a source seals with now. */
export interface Standing {
  /** The key that seals, as `local:2` or `vault:3`. */
  newest: string;
  /** Those that open what they sealed and seal nothing any more: what is under them is to be sealed anew. */
  older: readonly string[];
}

/** A source of master keys, in this process's settings or in a key service: the newest seals, each opens what it sealed. */
export interface MasterKeys {
  readonly source: KeySource;
  /** Throws UNAVAILABLE (KEY_SERVICE_UNAVAILABLE) when a key service does not do it. */
  seal(plain: Uint8Array, aad: string): Promise<Sealed>;
  /** Throws a MasterKeyError when it does not open, and UNAVAILABLE like `seal`. */
  open(sealed: Sealed, aad: string): Promise<Buffer>;
  /** Throws UNAVAILABLE like `seal`, and an Error where the service's key must not be used. */
  standing(): Promise<Standing>;
}

/** It does not open, now or later: it was changed or put in another's place, or its key is gone. */
export class MasterKeyError extends Error {
  override readonly name = 'MasterKeyError';
  readonly fault: 'KEY_ALTERED' | 'KEY_VERSION_UNKNOWN';

  constructor(fault: MasterKeyError['fault'], message: string, options?: ErrorOptions) {
    super(message, options);
    this.fault = fault;
  }
}

const VAULT_MARK = Buffer.from('vault:v');

/**
 * Which source sealed something: a key service's text begins with its name. Random bytes do so by accident once in 2^56,
 * and then do not open.
 */
export function sourceOf(sealed: Uint8Array): KeySource {
  return VAULT_MARK.equals(sealed.subarray(0, VAULT_MARK.length)) ? 'vault' : 'local';
}

/** SQL: the key something in a column is sealed under, as Standing names it. */
export function sealedBySql(column: string): string {
  return `CASE WHEN substring(${column} FOR 7) = 'vault:v'::bytea THEN 'vault:' ELSE 'local:' END || master_key_version`;
}

/** `now` seals; `before` still opens what it sealed, all of which is to be sealed anew. */
export function inPlaceOf(before: MasterKeys, now: MasterKeys): MasterKeys {
  return {
    source: now.source,
    seal: (plain, aad) => now.seal(plain, aad),
    open: (sealed, aad) => (sourceOf(sealed.sealed) === now.source ? now : before).open(sealed, aad),
    async standing() {
      const [after, earlier] = await Promise.all([now.standing(), before.standing()]);
      return { newest: after.newest, older: [...after.older, earlier.newest, ...earlier.older] };
    },
  };
}
