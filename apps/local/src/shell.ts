import { createInterface } from 'node:readline';
import pg from 'pg';

/**
 * Reads SQL statements, each ended by a semicolon at a line's end, and prints what they answer. In a terminal it asks; a
 * failed statement is told and the next goes on. From a pipe the first failure ends it: answers the exit code.
 */
export async function sqlShell(url: string): Promise<number> {
  const client = new pg.Client({ connectionString: url, application_name: 'mad-shell' });
  await client.connect();
  const interactive = process.stdin.isTTY;
  const lines = createInterface({ input: process.stdin, output: interactive ? process.stderr : undefined });
  const ask = (prompt: string) => {
    if (!interactive) return;
    lines.setPrompt(prompt);
    lines.prompt();
  };
  let statement = '';
  try {
    ask('mad=> ');
    for await (const line of lines) {
      if (statement === '' && /^\s*(\\q|exit|quit)\s*;?\s*$/i.test(line)) return 0;
      statement += `${line}\n`;
      if (line.trimEnd().endsWith(';')) {
        const ok = await run(client, statement);
        statement = '';
        if (!ok && !interactive) return 1;
      }
      ask(statement.trim() === '' ? 'mad=> ' : 'mad-> ');
    }
    return statement.trim() === '' || (await run(client, statement)) ? 0 : 1;
  } finally {
    lines.close();
    await client.end();
  }
}

async function run(client: pg.Client, statement: string): Promise<boolean> {
  try {
    // Several statements answer several results.
    const results = [await client.query<unknown[]>({ text: statement, rowMode: 'array' })].flat();
    for (const result of results) process.stdout.write(`${resultText(result)}\n`);
    return true;
  } catch (error) {
    const { message, hint } = error as pg.DatabaseError;
    process.stderr.write(`ERROR: ${message}${hint ? `\nHINT: ${hint}` : ''}\n`);
    return false;
  }
}

function resultText({ fields, rows, command, rowCount }: pg.QueryResult<unknown[]>): string {
  if (fields.length === 0) return `${command}${rowCount === null ? '' : ` ${rowCount}`}`;
  const cells = rows.map((row) => row.map(cellText));
  const widths = fields.map(({ name }, i) => Math.max(name.length, ...cells.map((row) => row[i]!.length)));
  const line = (row: string[], filler = ' ') =>
    row.map((cell, i) => cell.padEnd(widths[i]!, filler)).join(filler === '-' ? '-+-' : ' | ');
  return [
    line(fields.map(({ name }) => name)),
    line(
      fields.map(() => ''),
      '-',
    ),
    ...cells.map((row) => line(row)),
    `(${rows.length} row${rows.length === 1 ? '' : 's'})`,
  ].join('\n');
}

function cellText(value: unknown): string {
  if (value === null) return '';
  if (value instanceof Date) return value.toISOString();
  return typeof value === 'string' ? value : JSON.stringify(value);
}
