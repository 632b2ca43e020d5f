import type { Boss, Database } from '@mad/postgres';
import type { Logger } from '@mad/process';
import type { PermissionCatalogue } from './domain/permissions.ts';
import type { SigningKeys } from './keys/signing-keys.ts';
import type { MasterKey } from './secrets/master-key.ts';
import type { PasswordChecker } from './secrets/passwords.ts';

/** What handlers may reach. */
export interface IdentityContext {
  database: Database;
  boss: Boss;
  keys: SigningKeys;
  master: MasterKey;
  passwords: PasswordChecker;
  permissions: PermissionCatalogue;
  /** When databases are made: with the organization, or with its first write. */
  provisioning: 'eager' | 'on_first_write';
  /** The region of organizations that name none. */
  defaultRegion: string;
  /** Has the organization's database opened ahead of its first use. Returns at once. */
  prewarm: (orgId: string) => void;
  logger: Logger;
}
