import pg from 'pg';

/** A statement that a service ran: what is needed to ask Postgres for its plan as that service would get it. */
export interface TappedStatement {
  sql: string;
  params: unknown[];
  /** The session's organization, where one was set. */
  orgId: string | undefined;
  login: pg.ClientConfig;
}

/** What a client keeps of how it connected. */
interface Connected {
  host: string;
  port: number;
  user: string;
  database: string;
  password: string;
  connectionParameters: { options?: string };
}

const ORGANIZATION = /set_config\('app\.current_org_id', '([^']*)'/;
const PLANNED = /^\s*(WITH|SELECT|INSERT|UPDATE|DELETE)\b/i;

/**
 * Listens on every connection of this process: each statement goes on to Postgres unchanged, and a copy of its first run
 * with parameters is kept. Answers the copies and how to stop.
 */
export function tapStatements(): { statements: Map<string, TappedStatement>; stop: () => void } {
  const statements = new Map<string, TappedStatement>();
  const organizations = new WeakMap<object, string>();
  const prototype = pg.Client.prototype as unknown as { query: (...args: unknown[]) => unknown };
  const original = prototype.query;
  prototype.query = function (this: Connected, ...args: unknown[]): unknown {
    const [first, second] = args;
    const config = (typeof first === 'object' ? first : { text: first }) as { text?: string; values?: unknown[] };
    const { text: sql } = config;
    if (typeof sql === 'string') {
      if (/^BEGIN\b/.test(sql)) organizations.set(this, ORGANIZATION.exec(sql)?.[1] ?? '');
      const key = `${this.user.replace(/[0-9a-f]{32}/, '')}: ${sql}`;
      if (PLANNED.test(sql) && !statements.has(key)) {
        statements.set(key, {
          sql,
          params: config.values ?? (Array.isArray(second) ? second : []),
          orgId: organizations.get(this) || undefined,
          login: {
            host: this.host,
            port: this.port,
            user: this.user,
            database: this.database,
            password: this.password,
            options: this.connectionParameters.options || undefined,
          },
        });
      }
    }
    return original.apply(this, args);
  };
  return { statements, stop: () => void (prototype.query = original) };
}
