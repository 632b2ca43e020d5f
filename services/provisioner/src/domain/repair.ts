import { parseIndex } from './index-definition.ts';
import type { Difference } from './schema-difference.ts';

/** One thing to do: a statement, or an index to be built beside those who write. */
export type RepairStep = { sql: string } | { index: string };

/** What repairs a tenant, and what nothing safely repairs. */
export interface Repair {
  steps: RepairStep[];
  left: { difference: Difference; why: string }[];
}

const BY_HAND = 'what is there may hold data that somebody needs: look at it, then drop it by hand';
const WITH_DATA = 'making it again would not bring its data back: restore a backup, or repair it by hand';
const OTHERWISE = 'it is there, and another: changing it may lose data or lock its table for long: repair it by hand';

/**
 * What makes again what is missing and holds no data: indexes, constraints, rights, functions, triggers. Nothing is ever dropped,
 * but an index that a crash left invalid.
 */
export function planRepair(schema: string, differences: readonly Difference[]): Repair {
  const left: Repair['left'] = [];
  const [functions, indexes, constraints, triggers, rights]: RepairStep[][] = [[], [], [], [], []];
  const gone = new Set(differences.filter(isLostTable).map(({ name }) => name));
  for (const difference of differences) {
    const { kind, name, expected, actual } = difference;
    const leave = (why: string): number => left.push({ difference, why });
    if (difference.difference === 'unexpected') leave(BY_HAND);
    else if (kind === 'function') functions!.push({ sql: expected.trim() });
    else if (kind === 'rights') {
      const grants = grantsOf(schema, name, expected, actual);
      if (ofLost(gone, name)) leave(WITH_DATA);
      else if (grants.length === 0) leave('rights that are too many are taken away by hand');
      else rights!.push(...grants.map((sql) => ({ sql })));
    } else if (kind === 'index' && (difference.difference === 'missing' || actual === `${expected} INVALID`)) {
      if (gone.has(parseIndex(expected).tableName)) leave(WITH_DATA);
      else indexes!.push({ index: expected });
    } else if (kind === 'constraint' && difference.difference === 'missing') {
      const statements = constraintOf(schema, difference, differences);
      if (statements === undefined || ofLost(gone, name)) leave(WITH_DATA);
      else constraints!.push(...statements.map((sql) => ({ sql })));
    } else if (kind === 'constraint' && actual === `${expected} NOT VALID`) {
      const { table, own } = partsOf(name);
      constraints!.push({ sql: `ALTER TABLE ${schema}.${table} VALIDATE CONSTRAINT ${own}` });
    } else if (kind === 'trigger' && difference.difference === 'missing' && !ofLost(gone, name)) {
      triggers!.push({ sql: expected });
    } else leave(difference.difference === 'missing' ? WITH_DATA : OTHERWISE);
  }
  return { steps: [functions, indexes, constraints, triggers, rights].flatMap((steps) => steps!), left };
}

/** What a step runs, for people. */
export function stepText(step: RepairStep): string {
  if ('sql' in step) return step.sql;
  const { unique, name, partitioned, table, rest } = parseIndex(step.index);
  const made = unique ? 'CREATE UNIQUE INDEX' : 'CREATE INDEX';
  if (!partitioned) return `${made} CONCURRENTLY ${name} ON ${table} ${rest}`;
  return `${made} ${name} ON ONLY ${table} ${rest} -- and CONCURRENTLY on each partition, then attached`;
}

const isLostTable = ({ difference, kind }: Difference): boolean => difference === 'missing' && kind === 'table';

/** Whether it is about a table that is gone as well: `notes.notes_pkey`, or `table notes`. */
function ofLost(gone: ReadonlySet<string>, name: string): boolean {
  return gone.has(partsOf(name).table) || gone.has(name.replace(/^table /, ''));
}

function partsOf(name: string): { table: string; own: string } {
  const dot = name.indexOf('.');
  return { table: name.slice(0, dot), own: name.slice(dot + 1) };
}

/** A key takes the index of its name, which is built before; what is checked is first added, then validated. */
function constraintOf(
  schema: string,
  { name, expected }: Difference,
  all: readonly Difference[],
): string[] | undefined {
  const { table, own } = partsOf(name);
  const alter = `ALTER TABLE ${schema}.${table}`;
  if (/^(CHECK|FOREIGN KEY)/.test(expected)) {
    const add = `${alter} ADD CONSTRAINT ${own} ${expected}`;
    return expected.endsWith('NOT VALID') ? [add] : [`${add} NOT VALID`, `${alter} VALIDATE CONSTRAINT ${own}`];
  }
  const key = /^(PRIMARY KEY|UNIQUE) \(/.exec(expected)?.[1];
  const index = all.find((one) => one.kind === 'index' && one.name === own);
  if (key === undefined || index === undefined || parseIndex(index.expected).partitioned) return undefined;
  const deferrable = /\) (.*)$/.exec(expected)?.[1];
  return [
    `${alter} ADD CONSTRAINT ${own} ${key} USING INDEX ${own}${deferrable === undefined ? '' : ` ${deferrable}`}`,
  ];
}

/** The rights that are missing, e.g. of `table notes`: `mad_results_app=SELECT,…`. */
function grantsOf(schema: string, name: string, expected: string, actual: string): string[] {
  const list = (text: string): string[] =>
    text
      .replace(/ owner .*$/, '')
      .split(',')
      .filter((one) => one !== '');
  const has = new Set(list(actual));
  const [what, ...rest] = name.split(' ');
  const object = `${what!.toUpperCase()} ${schema}.${rest.join(' ')}`.replace(/^VIEW /, 'TABLE ');
  const missing = list(expected).filter((one) => !has.has(one));
  const grants = missing.map((one) => {
    const [grantee, right] = one.split('=') as [string, string];
    return `GRANT ${right} ON ${object} TO ${grantee}`;
  });
  // A function is everybody's when it is made anew.
  const open = what === 'routine' && actual === '' && !list(expected).some((one) => one.startsWith('PUBLIC='));
  return open ? [`REVOKE ALL ON ${object} FROM PUBLIC`, ...grants] : grants;
}
