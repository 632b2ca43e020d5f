import { COLUMNS_SQL, DETAILS_SQL, LIST_SQL, namePattern, RELATIONS_SQL } from './catalog-queries.ts';
import { tableText, type Answer } from './result-text.ts';

/** What a backslash command may do in the shell it is typed into. */
export interface ShellControl {
  query(sql: string, parameters?: unknown[]): Promise<Answer>;
  /** Goes over to another database of the server. Throws Postgres's error and stays where it is. */
  connect(database: string): Promise<void>;
  /** Writes records one below the other from now on, or tables again. */
  expand(on: boolean): void;
  expanded(): boolean;
  /** Where the shell is, for people. */
  where(): string;
  /** Writes an answer as the shell's format has it. */
  show(answer: Answer): void;
  say(text: string): void;
}

/** What came of a backslash command. */
export type Outcome = 'done' | 'failed' | 'quit';

const HELP = `\\d [name]   a table, view or index in full; without a name, what \\dt and \\dv list
\\dt [name]  tables      \\dv [name]  views      \\di [name]  indexes
\\dT [name]  enums and domains
\\dn         schemas     \\l          databases  \\du          roles
\\c database another database of this server    \\conninfo    where this is
\\x          one record below the other, on or off
\\q          the end
Names may hold * and ?, and a schema: catalog.j*. A statement ends with a semicolon.`;

/** Runs a line that begins with a backslash. Throws what the server said. */
export async function runMeta(line: string, shell: ShellControl): Promise<Outcome> {
  const [, name = '', argument = ''] = /^\\([a-zA-Z?]+)\+?\s*(.*?)\s*;?\s*$/.exec(line.trim()) ?? [];
  switch (name) {
    case 'q':
      return 'quit';
    case '?':
    case 'h':
      shell.say(HELP);
      return 'done';
    case 'x':
      shell.expand(argument === '' ? !shell.expanded() : argument === 'on');
      shell.say(`Expanded display is ${shell.expanded() ? 'on' : 'off'}.`);
      return 'done';
    case 'conninfo':
      shell.say(shell.where());
      return 'done';
    case 'c':
    case 'connect':
      if (argument !== '') await shell.connect(argument.replace(/^"(.*)"$/, '$1'));
      shell.say(shell.where());
      return 'done';
    case 'd':
      return argument === '' ? list('d', argument, shell) : describe(argument, shell);
    default:
      if (Object.hasOwn(LIST_SQL, name)) return list(name, argument, shell);
      shell.say(`ERROR: \\${name || line.trim().slice(1)} is not known here; \\? lists what is`);
      return 'failed';
  }
}

async function list(name: string, argument: string, shell: ShellControl): Promise<Outcome> {
  const { schema, relation } = namePattern(argument);
  shell.show(await shell.query(LIST_SQL[name]!, [schema, relation]));
  return 'done';
}

/** Every relation that the name fits: its columns, then its indexes, rules, policies and partitions. */
async function describe(argument: string, shell: ShellControl): Promise<Outcome> {
  const { schema, relation } = namePattern(argument);
  const found = await shell.query(RELATIONS_SQL, [schema, relation]);
  if (found.rows.length === 0) {
    shell.say(`ERROR: there is no relation ${argument}`);
    return 'failed';
  }
  for (const [oid, title] of found.rows) {
    const columns = await shell.query(COLUMNS_SQL, [oid]);
    const details = await shell.query(DETAILS_SQL, [oid]);
    const lines = details.rows.map(([group, text], i) => {
      const heading = group === details.rows[i - 1]?.[0] ? [] : [`${group}:`];
      return [...heading, `    ${text}`].join('\n');
    });
    shell.say([title!, tableText(columns.columns, columns.rows), ...lines].join('\n'));
  }
  return 'done';
}
