import { createHash } from 'node:crypto';
import { ObjectKeyService } from '@mad/proto/provisioner';
import { bind, type BoundService } from '@mad/rpc';

/** The provisioner's keys for objects, another one for each organization: for servers that stand for it. */
export function testObjectKeys(): BoundService {
  return bind(ObjectKeyService, {
    getObjectKeys: ({ orgId }) => ({ keys: [{ version: 1, key: createHash('sha256').update(orgId).digest() }] }),
  });
}
