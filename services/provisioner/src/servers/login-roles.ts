import { scramVerifier } from '@mad/postgres';
import pg from 'pg';

const id = pg.escapeIdentifier;
const text = pg.escapeLiteral;

/** One login and its password. */
export interface LoginRole {
  name: string;
  password: string;
}

/** Those of the roles that the server has. */
export async function presentRoles(client: pg.ClientBase, names: readonly string[]): Promise<string[]> {
  const { rows } = await client.query<{ rolname: string }>(
    'SELECT rolname FROM pg_roles WHERE rolname = ANY ($1) ORDER BY 1',
    [names],
  );
  return rows.map(({ rolname }) => rolname);
}

/**
 * Statements that make the logins with these passwords, without any right. Repeatable. The server is sent what it stores
 * instead of the passwords, so no statement log ever holds one.
 */
export async function loginsText(logins: readonly LoginRole[]): Promise<string> {
  const verifiers = await Promise.all(logins.map(({ password }) => scramVerifier(password)));
  const roles = logins.map(({ name }, index) => {
    const role = id(name);
    return `
      DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = ${text(name)}) THEN CREATE ROLE ${role}; END IF;
      END $$;
      ALTER ROLE ${role} LOGIN PASSWORD ${text(verifiers[index]!)};`;
  });
  return roles.join('');
}

/** Makes the logins, or gives those that are there these passwords. What they may do is not changed. */
export async function makeLogins(client: pg.ClientBase, logins: readonly LoginRole[]): Promise<void> {
  await client.query(await loginsText(logins));
}

/** Makes the logins that the server has lost. Those it has stay as they are. */
export async function makeMissingLogins(client: pg.ClientBase, logins: readonly LoginRole[]): Promise<void> {
  const present = await presentRoles(
    client,
    logins.map(({ name }) => name),
  );
  const missing = logins.filter(({ name }) => !present.includes(name));
  if (missing.length > 0) await makeLogins(client, missing);
}
