import { invalid } from '@mad/rpc';
import { hasControlCharacters, hasNul, isBlank } from './domain/text.ts';

/** Throws unless a text may be a name people read: any letters and signs, no control characters, not blank. */
export function requireName(field: string, text: string): void {
  if (hasControlCharacters(text)) throw invalid(field, 'must not contain control characters');
  if (isBlank(text)) throw invalid(field, 'must not be blank');
}

/** Throws unless a text or JSON object can be stored: Postgres takes every character but NUL. */
export function requireStorable(field: string, value: unknown): void {
  if (hasNul(value)) throw invalid(field, 'must not contain the character NUL');
}
