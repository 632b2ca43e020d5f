/** Whether a text holds what no name does: control characters, which also no Postgres text can hold (NUL). */
export function hasControlCharacters(text: string): boolean {
  return /\p{Cc}/u.test(text);
}

/** Whether a text is blank to the eye. */
export function isBlank(text: string): boolean {
  return text.trim() === '';
}

/** At most so many characters, cut between whole ones. */
export function shortened(text: string, length: number): string {
  return text.length <= length ? text.toWellFormed() : text.slice(0, length).toWellFormed();
}
