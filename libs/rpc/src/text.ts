import { invalid } from './errors.ts';

/**
 * Throws INVALID_ARGUMENT unless a text may be a name people read: any letters and signs, no control characters (which
 * also no Postgres text can hold: NUL), not blank to the eye.
 */
export function requireName(field: string, text: string, { mayBeEmpty = false } = {}): void {
  if (/\p{Cc}/u.test(text)) throw invalid(field, 'must not contain control characters');
  if (text.trim() === '' && !(mayBeEmpty && text === '')) throw invalid(field, 'must not be blank');
}

/** Throws INVALID_ARGUMENT unless a text or JSON value can be stored: Postgres takes every character but NUL. */
export function requireStorable(field: string, value: unknown): void {
  if (hasNul(value)) throw invalid(field, 'must not contain the character NUL');
}

/** Whether NUL is anywhere in a JSON value, names of members among it. */
function hasNul(value: unknown): boolean {
  if (typeof value === 'string') return value.includes('\u0000');
  if (Array.isArray(value)) return value.some(hasNul);
  if (typeof value !== 'object' || value === null) return false;
  return Object.entries(value).some(([key, member]) => key.includes('\u0000') || hasNul(member));
}
