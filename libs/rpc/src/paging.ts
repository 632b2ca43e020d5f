import { createHash } from 'node:crypto';
import type { JsonValue } from '@bufbuild/protobuf';
import { invalid } from './errors.ts';

/** How to read a list request. */
export interface PageOptions {
  /**
   * Everything that decides which rows follow which: organization, filters, order. A token is good only for the query
   * it was made for.
   */
  query: unknown;
  /** Rows when the request leaves page_size at 0. Default 50. */
  defaultSize?: number;
  /** More than this is cut down to it. Default 1000. */
  maxSize?: number;
  /** Says whether a cursor has the shape this query makes; tokens are not signed, so one may be forged. */
  isCursor?: (cursor: JsonValue) => boolean;
}

/** A page to read: at most `size` rows after `cursor`, from the start where it is undefined. */
export interface Page {
  size: number;
  cursor: JsonValue | undefined;
}

/** Reads page_size and page_token (AIP-158). A malformed token, or one of another query, is INVALID_ARGUMENT. */
export function pageOf(request: { pageSize: number; pageToken: string }, options: PageOptions): Page {
  const { defaultSize = 50, maxSize = 1000 } = options;
  if (request.pageSize < 0) throw invalid('page_size', 'must not be negative');
  const size = Math.min(request.pageSize || defaultSize, maxSize);
  return { size, cursor: request.pageToken === '' ? undefined : cursorOf(request.pageToken, options) };
}

/** The token of the page after the row at `cursor` (the row's values in the order's columns). Opaque to callers. */
export function nextPageToken(query: unknown, cursor: JsonValue): string {
  return Buffer.from(JSON.stringify([digestOf(query), cursor])).toString('base64url');
}

function cursorOf(token: string, { query, isCursor }: PageOptions): JsonValue {
  let content: unknown;
  try {
    content = JSON.parse(Buffer.from(token, 'base64url').toString());
  } catch {
    throw invalid('page_token', 'is not a page token');
  }
  if (!Array.isArray(content) || content.length !== 2) throw invalid('page_token', 'is not a page token');
  const [digest, cursor] = content as [unknown, JsonValue];
  if (digest !== digestOf(query)) throw invalid('page_token', 'belongs to another query');
  if (isCursor && !isCursor(cursor)) throw invalid('page_token', 'is not a page token');
  return cursor;
}

/** 12 characters that differ when queries differ; the order of keys does not matter. */
function digestOf(query: unknown): string {
  return createHash('sha256').update(canonical(query)).digest('base64url').slice(0, 12);
}

function canonical(query: unknown): string {
  const text = JSON.stringify(query, (_key, value: unknown) => {
    if (typeof value === 'bigint') return `${value}n`;
    if (value === null || typeof value !== 'object' || Array.isArray(value)) return value;
    return Object.fromEntries(Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1)));
  });
  return text ?? '';
}
