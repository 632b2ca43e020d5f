import type { Column, Constraint, SchemaModel, Table } from './read-schema.ts';

/** A comment of a column beyond this is cut. */
const COMMENT_LENGTH = 60;

/** Mermaid takes a word of letters, digits, `_`, `-`, `()` and `[]` for a type. */
export function diagramType(type: string, schema: string): string {
  return type
    .replace(/^timestamp(\(\d\))? with time zone/, 'timestamptz$1')
    .replace('double precision', 'float8')
    .replace('character varying', 'varchar')
    .replace(/^"char"/, 'char')
    .replace(new RegExp(`^(${schema}|public)\\.`), '')
    .replace(/,\d+\)/, ')')
    .replaceAll(/[^A-Za-z0-9_()[\]-]/g, '_');
}

/** The first clause of a comment, without what would end a quoted text. */
export function shortened(comment: string, length = COMMENT_LENGTH): string {
  return cut(comment.split(/[;\n]/, 1)[0]!.replaceAll('"', "'").trim(), length);
}

/** At most so many characters; what is cut off shows as `…`. */
export function cut(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length - 1).trimEnd()}…`;
}

/** A Mermaid entity-relationship diagram of a schema. */
export function diagram({ name, tables, constraints }: SchemaModel): string {
  return [
    'erDiagram',
    ...tables.flatMap((table) => entity(table, constraints, name)),
    ...constraints.flatMap((one) => relation(one, tables, constraints)),
  ].join('\n');
}

function entity(table: Table, constraints: readonly Constraint[], schema: string): string[] {
  const own = constraints.filter(({ on }) => on === table.name);
  const within = (kind: Constraint['kind'], column: Column) =>
    own.some((one) => one.kind === kind && one.columns.includes(column.name));
  const lines = table.columns.map((column) => {
    const keys = [
      ...(within('primary key', column) ? ['PK'] : []),
      ...(within('foreign key', column) ? ['FK'] : []),
      ...(within('unique', column) ? ['UK'] : []),
    ].join(', ');
    const comment = [column.nullable ? 'null' : '', shortened(column.comment)].filter(Boolean).join('. ');
    const parts = [diagramType(column.type, schema), column.name, keys, comment && `"${comment}"`];
    return `    ${parts.filter(Boolean).join(' ')}`;
  });
  return [`  ${table.name} {`, ...lines, '  }'];
}

/** From the table referred to, to the one that refers: one or none of it, to many or at most one. */
function relation(one: Constraint, tables: readonly Table[], constraints: readonly Constraint[]): string[] {
  if (one.kind !== 'foreign key') return [];
  const table = tables.find(({ name }) => name === one.on)!;
  const optional = table.columns.some((column) => one.columns.includes(column.name) && column.nullable);
  const single = constraints.some(
    ({ on, kind, columns }) =>
      on === one.on &&
      (kind === 'primary key' || kind === 'unique') &&
      columns.every((column) => one.columns.includes(column)),
  );
  return [
    `  ${one.refersTo} ${optional ? '|o' : '||'}--${single ? 'o|' : 'o{'} ${one.on} : "${one.columns.join(', ')}"`,
  ];
}
