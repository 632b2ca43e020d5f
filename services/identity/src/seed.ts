import type { Tx } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { builtInRoles, type PermissionCatalogue } from './domain/permissions.ts';

/** Rows that a seed made, and that it found. */
export interface SeedCount {
  created: number;
  existing: number;
}

/**
 * Makes the built-in roles and gives them every permission they have not yet. Takes nothing away: while two versions
 * of the services run side by side, each asks for its own permissions. Runs under the second login.
 */
export async function seedRoles(tx: Tx, catalogue: PermissionCatalogue): Promise<SeedCount> {
  let created = 0;
  let wanted = 0;
  for (const { name, permissions } of builtInRoles(catalogue)) {
    wanted += 1 + permissions.length;
    created += await tx.execute(
      'INSERT INTO identity.roles (role_id, org_id, name) VALUES ($1, NULL, $2) ON CONFLICT (org_id, name) DO NOTHING',
      [uuidv7(), name],
    );
    created += await tx.execute(
      `INSERT INTO identity.role_permissions (role_id, permission)
       SELECT r.role_id, p FROM identity.roles r, unnest($2::text[]) AS p WHERE r.org_id IS NULL AND r.name = $1
       ON CONFLICT DO NOTHING`,
      [name, [...permissions]],
    );
  }
  return { created, existing: wanted - created };
}
