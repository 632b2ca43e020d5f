/** What a text of SQL is made of. */
export interface SplitText {
  /** Complete statements, each with its semicolon; comments alone are none. */
  statements: string[];
  /** What follows the last semicolon and is not complete; empty when that says nothing. */
  rest: string;
}

/** The end of a quoted text that begins at `from`; undefined when it does not end. A doubled quote is part of the text. */
function quotedEnd(text: string, from: number, quote: string, escapes: boolean): number | undefined {
  for (let i = from + 1; i < text.length; i += 1) {
    if (escapes && text[i] === '\\') i += 1;
    else if (text[i] === quote && text[i + 1] === quote) i += 1;
    else if (text[i] === quote) return i + 1;
  }
  return undefined;
}

/** The end of a block comment that begins at `from`; they nest. */
function commentEnd(text: string, from: number): number | undefined {
  let depth = 1;
  for (let i = from + 2; i < text.length; i += 1) {
    const pair = text.slice(i, i + 2);
    if (pair === '/*') depth += 1;
    if (pair === '*/') depth -= 1;
    if (pair === '/*' || pair === '*/') i += 1;
    if (depth === 0) return i + 1;
  }
  return undefined;
}

/** A part of SQL in which a semicolon ends nothing. */
interface Part {
  /** Undefined when the text ends within it. */
  end: number | undefined;
  comment: boolean;
}

const DOLLAR = /\$(?:[\p{L}_][\p{L}\p{N}_]*)?\$/uy;
const IDENTIFIER = /[\p{L}\p{N}_$]/u;

/** The comment or quoted text that begins at `at`; undefined when neither does. */
function partAt(text: string, at: number): Part | undefined {
  const char = text[at]!;
  const pair = text.slice(at, at + 2);
  if (pair === '--') {
    const end = text.indexOf('\n', at);
    return { end: end < 0 ? text.length : end + 1, comment: true };
  }
  if (pair === '/*') return { end: commentEnd(text, at), comment: true };
  if (char === "'") {
    // E'…' has escapes, unless the E is the end of a longer word.
    const escapes = /^e$/i.test(text[at - 1] ?? '') && !IDENTIFIER.test(text[at - 2] ?? ' ');
    return { end: quotedEnd(text, at, "'", escapes), comment: false };
  }
  if (char === '"') return { end: quotedEnd(text, at, '"', false), comment: false };
  if (char !== '$' || IDENTIFIER.test(text[at - 1] ?? ' ')) return undefined;
  DOLLAR.lastIndex = at;
  const tag = DOLLAR.exec(text)?.[0];
  if (tag === undefined) return undefined;
  const end = text.indexOf(tag, at + tag.length);
  return { end: end < 0 ? undefined : end + tag.length, comment: false };
}

/** Splits SQL at the semicolons that end statements: those within quotes, dollar quotes and comments do not. */
export function splitStatements(text: string): SplitText {
  const statements: string[] = [];
  let from = 0;
  // Whether there is more than blanks and comments since `from`.
  let solid = false;
  for (let i = 0; i < text.length;) {
    const part = partAt(text, i);
    if (part !== undefined) {
      // A comment that goes on in the next line is kept until it ends.
      if (part.end === undefined) return { statements, rest: text.slice(from) };
      solid ||= !part.comment;
      i = part.end;
      continue;
    }
    if (text[i] === ';') {
      if (solid) statements.push(text.slice(from, i + 1).trim());
      from = i + 1;
      solid = false;
    } else if (!/\s/.test(text[i]!)) {
      solid = true;
    }
    i += 1;
  }
  return { statements, rest: solid ? text.slice(from) : '' };
}
