import { readFileSync } from 'node:fs';
import type { ConnectionOptions } from 'node:tls';
import pg from 'pg';

const LOOPBACK = new Set(['localhost', '127.0.0.1', '[::1]']);

/** Object identifiers of the types whose JavaScript form we choose. */
const INT8 = 20;
const DATE = 1082;

const parserOf = pg.types.getTypeParser;

function parseInt8(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value)) throw new RangeError(`a bigint beyond 2^53 cannot be a number: ${text}`);
  return value;
}

/**
 * bigint arrives as a number (counts and sizes; beyond 2^53 it throws) and date as its text, because a calendar day
 * has no time zone. timestamptz is a Date in milliseconds: compare and page in SQL where microseconds matter.
 */
const types: pg.CustomTypesConfig = {
  getTypeParser: ((oid: number, format: 'text' | 'binary' = 'text') => {
    if (format === 'text' && oid === INT8) return parseInt8;
    if (format === 'text' && oid === DATE) return (text: string) => text;
    return (parserOf as (oid: number, format: string) => unknown)(oid, format);
  }) as pg.CustomTypesConfig['getTypeParser'],
};

function tlsOptions(url: URL): boolean | ConnectionOptions {
  const mode = url.searchParams.get('sslmode') ?? (LOOPBACK.has(url.hostname) ? 'disable' : 'verify-full');
  switch (mode) {
    case 'disable':
      return false;
    case 'no-verify':
      return { rejectUnauthorized: false };
    case 'verify-full': {
      const caFile = url.searchParams.get('sslrootcert');
      return { rejectUnauthorized: true, ...(caFile === null ? {} : { ca: readFileSync(caFile, 'utf8') }) };
    }
    default:
      throw new Error(`sslmode=${mode} is not supported: use verify-full, no-verify or disable`);
  }
}

/**
 * Whether statements may be prepared behind this URL: they may, unless it says `?prepare=false`. A pooler wants that
 * which hands each transaction another connection and knows no prepared statements (PgBouncer before 1.21).
 * Throws when it says anything else.
 */
export function mayPrepare(url: string): boolean {
  const prepare = new URL(url).searchParams.get('prepare') ?? 'true';
  if (prepare !== 'true' && prepare !== 'false') {
    throw new Error(`prepare=${prepare} is not supported: use true or false`);
  }
  return prepare === 'true';
}

/**
 * A Postgres URL as options for `pg`. Beyond loopback TLS with full verification is on unless the URL waives it
 * explicitly (`?sslmode=disable`); `sslrootcert` names a file with the authority's certificate.
 * Throws when the URL is malformed or asks for a mode that would verify less than it says.
 */
export function clientOptions(url: string): pg.ClientConfig {
  const parsed = new URL(url);
  return {
    host: parsed.hostname.replace(/^\[|\]$/g, ''),
    port: parsed.port === '' ? 5432 : Number(parsed.port),
    user: decodeURIComponent(parsed.username),
    password: decodeURIComponent(parsed.password),
    database: decodeURIComponent(parsed.pathname.slice(1)),
    ssl: tlsOptions(parsed),
    types,
  };
}
