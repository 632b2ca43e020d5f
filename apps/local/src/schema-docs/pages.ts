import { cut, diagram, shortened } from './diagram.ts';
import type { Constraint, SchemaModel } from './read-schema.ts';

/** A definition beyond this is cut: the migration has it in full. */
const DEFINITION_LENGTH = 150;
const TABLE_COMMENT_LENGTH = 140;

const MADE = '<!-- Made by `npx mad db erd` from migrated databases; what is written here by hand is lost. -->';

const KINDS: readonly Constraint['kind'][] = ['primary key', 'unique', 'foreign key', 'check', 'exclusion'];

/** Where a schema lives, for the index. */
export interface DocumentedSchema {
  model: SchemaModel;
  place: 'metadata' | 'organization';
  /** Who owns it, and what it holds. */
  about: string;
}

const cell = (text: string): string => text.replaceAll('|', '\\|');
const code = (text: string): string => `\`${cell(cut(text.replaceAll(/\s+/g, ' '), DEFINITION_LENGTH))}\``;
const row = (cells: (string | number)[]): string => `| ${cells.join(' | ')} |`;

function table(headings: string[], rows: (string | number)[][]): string {
  if (rows.length === 0) return 'None.';
  return [row(headings), row(headings.map(() => '---')), ...rows.map(row)].join('\n');
}

const ofKind = ({ constraints }: SchemaModel, kind: Constraint['kind']): number =>
  constraints.filter((one) => one.kind === kind).length;

/** The page of one schema: its diagram, then its tables, types, indexes and constraints, each counted. */
export function schemaPage({ model, place, about }: DocumentedSchema): string {
  const { name, tables, constraints, indexes, types } = model;
  const where = place === 'metadata' ? 'the metadata database' : "every organization's own database";
  const kinds = KINDS.filter((kind) => ofKind(model, kind) > 0).map((kind) => `${ofKind(model, kind)} ${kind}`);
  const explicit = indexes.filter(({ ofConstraint }) => !ofConstraint).length;
  return `${MADE}

# Schema \`${name}\`

${about} In ${where}.

Partitions are folded into their tables. In the diagram PK, FK and UK mark the columns of primary keys, foreign keys and
unique constraints; \`null\` marks what may be missing.

\`\`\`mermaid
${diagram(model)}
\`\`\`

## Tables (${tables.length})

${table(
  ['table', 'what', 'columns', 'partitioned by', 'policies'],
  tables.map((one) => [
    `\`${one.name}\``,
    cell(shortened(one.comment, TABLE_COMMENT_LENGTH)),
    one.columns.length,
    one.partitionedBy ? code(one.partitionedBy) : '',
    one.policies || '',
  ]),
)}

## Enums and domains (${types.length})

${table(
  ['type', 'kind', 'values or base type'],
  types.map((type) => [`\`${type.name}\``, type.kind, cell(type.values)]),
)}

## Indexes (${indexes.length})

${explicit} made for queries; ${indexes.length - explicit} came with primary keys and unique constraints.

${table(
  ['table', 'index', 'over', 'unique'],
  indexes.map((index) => [
    `\`${index.table}\``,
    `\`${index.name}\``,
    code(index.definition),
    index.unique ? 'yes' : '',
  ]),
)}

## Constraints (${constraints.length})

${kinds.join(', ') || 'None'}. NOT NULL is not counted.

${table(
  ['on', 'constraint', 'kind', 'rule'],
  constraints.map((one) => [`\`${one.on}\``, `\`${one.name}\``, one.kind, code(one.definition)]),
)}
`;
}

/** The index: totals over all schemas. */
export function indexPage(schemas: readonly DocumentedSchema[]): string {
  const counts = ({ tables, types, indexes, constraints }: SchemaModel) => [
    tables.length,
    types.filter(({ kind }) => kind === 'enum').length,
    types.filter(({ kind }) => kind === 'domain').length,
    indexes.length,
    constraints.length,
  ];
  const sum = (place: DocumentedSchema['place']) =>
    schemas
      .filter((one) => one.place === place)
      .map(({ model }) => counts(model))
      .reduce((total, one) => total.map((count, i) => count + one[i]!));
  const line = ({ model, about }: DocumentedSchema) => [
    `[\`${model.name}\`](${model.name}.md)`,
    about,
    ...counts(model),
  ];
  const of = (place: DocumentedSchema['place']) => schemas.filter((one) => one.place === place).map(line);
  return `${MADE}

# The schemas

Made from databases that every migration has run on; a test fails when these pages say something else than the
migrations. \`npx mad db erd\` writes them anew, \`npx mad db erd --check\` compares; neither needs a running system.

${table(
  ['schema', 'what', 'tables', 'enums', 'domains', 'indexes', 'constraints'],
  [
    ...of('metadata'),
    ['**metadata database**', '', ...sum('metadata').map((count) => `**${count}**`)],
    ...of('organization'),
    ['**each organization**', '', ...sum('organization').map((count) => `**${count}**`)],
  ],
)}

Not counted: partitions, the queues' own schemas (\`…_boss\`), the record of migrations that each schema keeps, and
\`reporting\`, which holds views alone: \`organizations\`, \`jobs_meta\`, \`organization_summary\`.
`;
}
