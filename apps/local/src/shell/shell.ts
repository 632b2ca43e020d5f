import { createInterface, type Interface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { clientOptions } from '@mad/postgres';
import pg from 'pg';
import { runMeta, type ShellControl } from './meta-commands.ts';
import { answerText, type Answer, type Format } from './result-text.ts';
import { splitStatements } from './statements.ts';

/** Where the shell goes and how it speaks. */
export interface ShellOptions {
  /** The URL of a database of the server; it names nobody's search path. */
  urlOf(database: string): string;
  database: string;
  /** The server refuses writes unless the session says otherwise: a seat belt for operators, no wall. */
  readOnly: boolean;
  json: boolean;
  input: Readable & { isTTY?: boolean };
  output: Writable;
  errors: Writable;
}

/** The schemas that plain names reach: the metadata database's, or a tenant's own. */
const METADATA_PATH = 'reporting,identity,catalog,provisioner,public';
const TENANT_PATH = 'results,public';

/** SQL without psql. */
class Shell implements ShellControl {
  readonly #options: ShellOptions;
  #client!: pg.Client;
  #database = '';
  #format: Format;

  constructor(options: ShellOptions) {
    this.#options = options;
    this.#format = options.json ? 'json' : 'table';
  }

  get database(): string {
    return this.#database;
  }

  async connect(database: string): Promise<void> {
    const path = database.startsWith('mad_results_') ? TENANT_PATH : METADATA_PATH;
    const readOnly = this.#options.readOnly ? ' -c default_transaction_read_only=on' : '';
    const client = new pg.Client({
      ...clientOptions(this.#options.urlOf(database)),
      application_name: 'mad-shell',
      options: `-c search_path=${path}${readOnly}`,
    });
    // Between two statements the server may go away: the next one says so.
    client.on('error', () => undefined);
    await client.connect();
    await this.#client?.end().catch(() => undefined);
    this.#client = client;
    this.#database = database;
  }

  async query(sql: string, parameters?: unknown[]): Promise<Answer> {
    const result = await this.#client.query<(string | null)[]>({
      text: sql,
      rowMode: 'array',
      // Values as Postgres spells them.
      types: { getTypeParser: () => String },
      ...(parameters ? { values: parameters } : {}),
    });
    const { fields, rows, command, rowCount } = result;
    return { command: command ?? '', rowCount, columns: fields.map(({ name }) => name), rows };
  }

  expand(on: boolean): void {
    this.#format = on ? 'expanded' : this.#options.json ? 'json' : 'table';
  }

  expanded(): boolean {
    return this.#format === 'expanded';
  }

  where(): string {
    const { user, host, port } = this.#client;
    const mode = this.#options.readOnly ? 'read-only' : 'writing';
    return `database ${this.#database} as ${user} on ${host}:${port}, ${mode}`;
  }

  show(answer: Answer): void {
    this.#options.output.write(`${answerText(answer, this.#format)}\n`);
  }

  say(text: string): void {
    const stream = text.startsWith('ERROR') || this.#options.json ? this.#options.errors : this.#options.output;
    stream.write(`${text}\n`);
  }

  /** Whether it went well; a failure is told. */
  async run(statement: string): Promise<boolean> {
    try {
      this.show(await this.query(statement));
      return true;
    } catch (error) {
      this.tell(error);
      return false;
    }
  }

  tell(error: unknown): void {
    const { message, detail, hint, code } = error as pg.DatabaseError;
    const writing = code === '25006' ? 'the shell reads only; start it with --write' : undefined;
    const lines = [`ERROR: ${message}`, detail && `DETAIL: ${detail}`, (hint ?? writing) && `HINT: ${hint ?? writing}`];
    this.say(lines.filter(Boolean).join('\n'));
  }

  async close(): Promise<void> {
    await this.#client.end().catch(() => undefined);
  }
}

/**
 * Reads SQL statements and backslash commands, and writes what they answer. At a terminal it asks; a failed statement is
 * told and the next goes on. From a pipe the first failure ends it. Answers the exit code.
 */
export async function sqlShell(options: ShellOptions): Promise<number> {
  const interactive = options.input.isTTY === true;
  const shell = new Shell(options);
  await shell.connect(options.database);
  const lines = createInterface({ input: options.input, ...(interactive ? { output: options.errors } : {}) });
  try {
    return await readLines(lines, shell, interactive);
  } finally {
    lines.close();
    await shell.close();
  }
}

async function readLines(lines: Interface, shell: Shell, interactive: boolean): Promise<number> {
  let text = '';
  const ask = (): void => {
    if (!interactive) return;
    lines.setPrompt(`${shell.database}${text === '' ? '=>' : '->'} `);
    lines.prompt();
  };
  // Ctrl-C forgets what was typed so far.
  lines.on('SIGINT', () => {
    text = '';
    ask();
  });
  ask();
  for await (const line of lines) {
    const outcome = text === '' ? await command(line, shell) : undefined;
    if (outcome === 'quit') return 0;
    if (outcome === 'failed' && !interactive) return 1;
    if (outcome === undefined) {
      const { statements, rest } = splitStatements(`${text}${line}\n`);
      text = rest;
      for (const statement of statements) {
        if (!(await shell.run(statement)) && !interactive) return 1;
      }
    }
    ask();
  }
  return text === '' || (await shell.run(text)) ? 0 : 1;
}

/** Runs a line that is no SQL; undefined for one that is. */
async function command(line: string, shell: Shell): Promise<'done' | 'failed' | 'quit' | undefined> {
  if (/^\s*(exit|quit)\s*;?\s*$/i.test(line)) return 'quit';
  if (!line.trimStart().startsWith('\\')) return undefined;
  try {
    return await runMeta(line, shell);
  } catch (error) {
    shell.tell(error);
    return 'failed';
  }
}
