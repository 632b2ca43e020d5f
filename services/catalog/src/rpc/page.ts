import type { JsonValue } from '@bufbuild/protobuf';
import { nextPageToken, type Page } from '@mad/rpc';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const MAX_INTEGER = 2 ** 31 - 1;

/** Tokens are not signed: a cursor is checked before it is asked for. */
export function isUuidCursor(cursor: JsonValue): boolean {
  return typeof cursor === 'string' && UUID.test(cursor);
}

/** A place in an order by a column of type integer. */
export function isIntegerCursor(cursor: JsonValue): boolean {
  return Number.isInteger(cursor) && (cursor as number) >= 0 && (cursor as number) <= MAX_INTEGER;
}

/** A place in an order by texts. */
export function isTextCursor(cursor: JsonValue): boolean {
  return typeof cursor === 'string' && !cursor.includes('\u0000');
}

/** A page of rows that were asked for with one more than its size: the rows to show, and the token of the next page. */
export function pageOfRows<R>(rows: R[], page: Page, query: unknown, cursorOf: (row: R) => JsonValue) {
  const shown = rows.slice(0, page.size);
  const more = rows.length > page.size;
  return { shown, nextPageToken: more ? nextPageToken(query, cursorOf(shown.at(-1)!)) : '' };
}
