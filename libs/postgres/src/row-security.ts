import pg from 'pg';
import { appRole, ownerRole, systemRole } from './roles.ts';

/** The organization of the current transaction. Once a transaction ends, the setting is the empty string, not null. */
export const ORG_PREDICATE = `org_id = nullif(current_setting('app.current_org_id', true), '')::uuid`;

export interface RowSecurity {
  /** The service's schema, e.g. `catalog`; the roles default to the service's. */
  schema: string;
  /** A table of it with a column `org_id`. Its partitions must exist already. */
  table: string;
  ownerRole?: string;
  appRole?: string;
  systemRole?: string;
  /** True lets the second login (`asSystem`) see and write every organization's rows. */
  systemMay: boolean;
  /** True lets everybody read rows without organization: those that come with the product. */
  builtInRows?: boolean;
  /** Further rows everybody may read, by policy name: a condition on the row, e.g. `visibility = 'public'`. */
  readAlso?: Readonly<Record<string, string>>;
}

/**
 * SQL for a migration: enables and forces row-level security on a table with `org_id` and on its partitions (which
 * could otherwise be read directly, past the parent's policies), and makes the named policies:
 * `<table>_owner`, `<table>_org`, `<table>_system`, `<table>_built_in`, `<table>_<name>`.
 */
export function rlsSql(options: RowSecurity): string {
  const { schema, table } = options;
  const target = `${pg.escapeIdentifier(schema)}.${pg.escapeIdentifier(table)}`;
  const policy = (name: string, rest: string): string =>
    `CREATE POLICY ${pg.escapeIdentifier(`${table}_${name}`)} ON ${target} ${rest};`;
  const to = (role: string): string => `TO ${pg.escapeIdentifier(role)}`;
  const app = options.appRole ?? appRole(schema);

  const statements = [
    `DO $$ DECLARE part regclass; BEGIN
       FOR part IN SELECT relid FROM pg_partition_tree(${pg.escapeLiteral(target)}::regclass)
                   UNION SELECT ${pg.escapeLiteral(target)}::regclass LOOP
         EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', part);
       END LOOP;
     END $$;`,
    policy('owner', `${to(options.ownerRole ?? ownerRole(schema))} USING (true) WITH CHECK (true)`),
    policy('org', `${to(app)} USING (${ORG_PREDICATE}) WITH CHECK (${ORG_PREDICATE})`),
  ];
  if (options.systemMay) {
    statements.push(policy('system', `${to(options.systemRole ?? systemRole(schema))} USING (true) WITH CHECK (true)`));
  }
  if (options.builtInRows) statements.push(policy('built_in', `FOR SELECT ${to(app)} USING (org_id IS NULL)`));
  for (const [name, condition] of Object.entries(options.readAlso ?? {})) {
    statements.push(policy(name, `FOR SELECT ${to(app)} USING (${condition})`));
  }
  return statements.join('\n');
}

/** SQL for a migration: the service's logins may add rows to a table and its partitions, and never change or remove one. */
export function appendOnlySql(schema: string, table: string): string {
  const target = pg.escapeLiteral(`${pg.escapeIdentifier(schema)}.${pg.escapeIdentifier(table)}`);
  const logins = [appRole(schema), systemRole(schema)].map((role) => pg.escapeIdentifier(role)).join(', ');
  return `DO $$ DECLARE part regclass; BEGIN
    FOR part IN SELECT relid FROM pg_partition_tree(${target}::regclass) UNION SELECT ${target}::regclass LOOP
      EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON %s FROM ${logins}', part);
    END LOOP;
  END $$;`;
}
