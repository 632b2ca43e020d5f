/** Whether a text holds what no name does: control characters, which also no Postgres text can hold (NUL). */
export function hasControlCharacters(text: string): boolean {
  return /\p{Cc}/u.test(text);
}

/** Whether a text is blank to the eye. */
export function isBlank(text: string): boolean {
  return text.trim() === '';
}

/** Whether NUL, which jsonb refuses, is anywhere in a JSON value. */
export function hasNul(value: unknown): boolean {
  if (typeof value === 'string') return value.includes('\u0000');
  if (Array.isArray(value)) return value.some(hasNul);
  if (typeof value !== 'object' || value === null) return false;
  return Object.entries(value).some(([key, member]) => key.includes('\u0000') || hasNul(member));
}

/** At most so many characters, cut between whole ones. */
export function shortened(text: string, length: number): string {
  return text.length <= length ? text.toWellFormed() : text.slice(0, length).toWellFormed();
}
