import { createHash } from 'node:crypto';
import {
  create,
  fromBinary,
  toBinary,
  toJson,
  type DescField,
  type DescMessage,
  type DescMethod,
  type JsonValue,
  type Message,
  type MessageInitShape,
  type MessageShape,
} from '@bufbuild/protobuf';
import { reflect } from '@bufbuild/protobuf/reflect';
import { Code } from '@connectrpc/connect';
import { DAY_MS } from '@mad/process';
import { rpcError } from '@mad/rpc';
import pg from 'pg';
import { rlsSql } from './row-security.ts';
import type { Tx } from './tx.ts';

const KEEP_MS = DAY_MS;
/** Stands for "no organization" (a platform call, a sign-up); a key cannot hold null. */
const NO_ORGANIZATION = '00000000-0000-0000-0000-000000000000';

/** SQL for a service's migration: the table `idempotent` works on, under row-level security. */
export function idempotencyTableSql(schema: string): string {
  const table = `${pg.escapeIdentifier(schema)}.idempotency_keys`;
  return `
    CREATE TABLE ${table} (
      org_id uuid NOT NULL,
      method text NOT NULL,
      request_id uuid NOT NULL,
      payload_hash bytea NOT NULL,
      field_hashes jsonb NOT NULL CONSTRAINT idempotency_keys_field_hashes_check CHECK (jsonb_typeof(field_hashes) = 'object'),
      response bytea,
      expires_at timestamptz NOT NULL,
      CONSTRAINT idempotency_keys_pkey PRIMARY KEY (org_id, method, request_id)
    );
    CREATE INDEX idx_idempotency_keys_expires_at ON ${table} (expires_at);
    COMMENT ON TABLE ${table} IS 'Internal: answers of mutations by request_id, kept for a day. org_id is all zeros where there is no organization.';
    COMMENT ON COLUMN ${table}.response IS 'Confidential: the answer as protobuf, without fields marked debug_redact; null while the first call runs.';
    ${rlsSql({ schema, table: 'idempotency_keys', systemMay: true })}`;
}

function isSecret(field: DescField): boolean {
  return field.proto.options?.debugRedact === true;
}

/** A copy without fields marked `debug_redact`, at any depth: secrets belong neither into a hash one could guess nor into a table. */
function withoutSecrets<D extends DescMessage>(schema: D, message: MessageShape<D>): MessageShape<D> {
  const copy = fromBinary(schema, toBinary(schema, message));
  clearSecrets(schema, copy);
  return copy;
}

function clearSecrets(schema: DescMessage, message: Message): void {
  const view = reflect(schema, message);
  for (const field of view.fields) {
    if (!view.isSet(field)) continue;
    if (isSecret(field)) {
      view.clear(field);
    } else if (field.fieldKind === 'message') {
      clearSecrets(field.message, view.get(field).message);
    } else if (field.fieldKind === 'list' && field.listKind === 'message') {
      for (const item of view.get(field)) clearSecrets(field.message, (item as { message: Message }).message);
    } else if (field.fieldKind === 'map' && field.mapKind === 'message') {
      for (const item of view.get(field).values()) clearSecrets(field.message, (item as { message: Message }).message);
    }
  }
}

/** JSON with sorted keys: a map's order is not part of what was asked. */
function canonical(value: JsonValue): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (value !== null && typeof value === 'object') {
    const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
    return `{${entries.map(([key, item]) => `${JSON.stringify(key)}:${canonical(item)}`).join(',')}}`;
  }
  return JSON.stringify(value);
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/** A hash over the whole request and one for each of its fields (by proto name), both without request_id and secrets. */
function hashRequest(method: DescMethod, request: Message, caller: string | undefined) {
  const json = toJson(method.input, withoutSecrets(method.input, request), { useProtoFieldName: true });
  const fields: Record<string, JsonValue> = { ...(json as Record<string, JsonValue>) };
  if (caller !== undefined) fields['caller'] = caller;
  delete fields['request_id'];
  const fieldHashes = Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [name, sha256(canonical(value)).toString('base64url')]),
  );
  return { payloadHash: sha256(canonical(fieldHashes)), fieldHashes };
}

interface StoredKey {
  payload_hash: Buffer;
  field_hashes: Record<string, string>;
  response: Buffer | null;
}

/** The first caller takes the key; others wait for the end of its transaction. An expired key is taken anew. */
const TAKE_SQL = (table: string): string => `
  INSERT INTO ${table} AS k (org_id, method, request_id, payload_hash, field_hashes, expires_at)
  VALUES ($1, $2, $3, $4, $5, now() + $6 * interval '1 ms')
  ON CONFLICT (org_id, method, request_id) DO UPDATE SET payload_hash = excluded.payload_hash,
    field_hashes = excluded.field_hashes, expires_at = excluded.expires_at, response = NULL
  WHERE k.expires_at < now()`;

/**
 * Runs `fn` once for an organization, method and `request_id`, in the caller's transaction: a repeat returns the first
 * answer, and a repeat that asks for something else fails with ALREADY_EXISTS naming the fields that differ. An empty
 * `request_id` runs `fn` unguarded. Fields marked `debug_redact` are not compared, and absent from a repeated answer.
 * The service's schema must hold `idempotencyTableSql`. `caller`, where given, is compared like a field.
 */
export async function idempotent<I extends DescMessage, O extends DescMessage>(
  tx: Tx,
  options: {
    /** The service's schema. */
    schema: string;
    /** Undefined where a call concerns no organization. */
    orgId: string | undefined;
    method: DescMethod & { input: I; output: O };
    request: MessageShape<I> & { requestId: string };
    caller?: string;
  },
  fn: () => Promise<MessageInitShape<O>>,
): Promise<MessageShape<O>> {
  const { method, request } = options;
  if (request.requestId === '') return create(method.output, await fn());
  const table = `${pg.escapeIdentifier(options.schema)}.idempotency_keys`;
  const name = `${method.parent.typeName}/${method.name}`;
  const key = [options.orgId ?? NO_ORGANIZATION, name, request.requestId];
  const { payloadHash, fieldHashes } = hashRequest(method, request, options.caller);

  const taken = await tx.execute(TAKE_SQL(table), [...key, payloadHash, JSON.stringify(fieldHashes), KEEP_MS]);
  const where = 'org_id = $1 AND method = $2 AND request_id = $3';
  if (taken > 0) {
    const answer = create(method.output, await fn());
    const bytes = toBinary(method.output, withoutSecrets(method.output, answer));
    await tx.execute(`UPDATE ${table} SET response = $4 WHERE ${where}`, [...key, bytes]);
    return answer;
  }
  const [stored] = await tx.query<StoredKey>(
    `SELECT payload_hash, field_hashes, response FROM ${table} WHERE ${where}`,
    key,
  );
  if (stored === undefined || stored.response === null) throw new Error(`the answer to ${name} was not kept`);
  if (!stored.payload_hash.equals(payloadHash)) {
    const names = new Set([...Object.keys(stored.field_hashes), ...Object.keys(fieldHashes)]);
    const differing = [...names].filter((field) => stored.field_hashes[field] !== fieldHashes[field]).sort();
    throw rpcError(
      Code.AlreadyExists,
      'REQUEST_ID_REUSED',
      `request_id was used for another request: ${differing.join(', ')} differ`,
      { fields: differing.join(','), request_id: request.requestId },
    );
  }
  return fromBinary(method.output, stored.response);
}

/** Deletes keys whose day is over, in every organization: run it under the second login. Returns how many. */
export async function deleteExpiredIdempotencyKeys(tx: Tx, schema: string): Promise<number> {
  return tx.execute(`DELETE FROM ${pg.escapeIdentifier(schema)}.idempotency_keys WHERE expires_at < now()`);
}
