/** An index, as the catalog defines it. */
export interface IndexDefinition {
  unique: boolean;
  /** Quoted where it must be. */
  name: string;
  /** Whether its table is partitioned: then each partition has an index of its own, attached to it. */
  partitioned: boolean;
  /** With the schema. */
  table: string;
  /** Without it. */
  tableName: string;
  /** From USING on. */
  rest: string;
}

const DEFINITION = /^CREATE (UNIQUE )?INDEX (\S+) ON (ONLY )?(\S+?)\.(\S+) (USING .*)$/s;

/** Reads what `pg_get_indexdef` says. Throws for anything else. */
export function parseIndex(definition: string): IndexDefinition {
  const match = DEFINITION.exec(definition);
  if (match === null) throw new Error(`not the definition of an index: ${definition}`);
  const [, unique, name, only, schema, table, rest] = match;
  return {
    unique: unique !== undefined,
    name: name!,
    partitioned: only !== undefined,
    table: `${schema}.${table}`,
    tableName: table!,
    rest: rest!,
  };
}
