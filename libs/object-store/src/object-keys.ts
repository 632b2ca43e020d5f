import { Code, ConnectError, createClient, type Transport } from '@connectrpc/connect';
import { MINUTE_MS, SECOND_MS } from '@mad/process';
import { ObjectKeyService } from '@mad/proto/provisioner';
import { LRUCache } from 'lru-cache';

const MAX_ORGANIZATIONS = 10_000;
const FRESH_MS = 10 * MINUTE_MS;
const TIMEOUT_MS = 5 * SECOND_MS;
const AWAY: ReadonlySet<Code> = new Set([Code.Unavailable, Code.DeadlineExceeded]);

/** A key that an organization's objects are sealed under. */
export interface ObjectKey {
  /** As the objects name it. */
  version: number;
  /** 32 bytes. */
  key: Uint8Array;
}

/** Where the keys of an organization's objects are to be had: all of them, the newest first. */
export type ObjectKeys = (orgId: string) => Promise<readonly ObjectKey[]>;

/**
 * The provisioner's, remembered for ten minutes (`freshMs`); while the provisioner is away, what is known stays in use. What it refuses, as of
 * an organization that is erased, is forgotten. `transport` carries the service's own token. Fails as the call does.
 */
export function objectKeys(transport: Transport, freshMs = FRESH_MS): ObjectKeys {
  const client = createClient(ObjectKeyService, transport);
  const remembered = new LRUCache<string, readonly ObjectKey[]>({
    max: MAX_ORGANIZATIONS,
    ttl: freshMs,
    fetchMethod: async (orgId, known) => {
      try {
        return (await client.getObjectKeys({ orgId }, { timeoutMs: TIMEOUT_MS })).keys;
      } catch (error) {
        const isAway = error instanceof ConnectError && AWAY.has(error.code);
        if (isAway && known !== undefined) return known;
        throw error;
      }
    },
  });
  return (orgId) => remembered.forceFetch(orgId);
}
