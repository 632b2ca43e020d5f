import { serviceKeysSetting, type ServiceKeys } from '@mad/auth';
import { readEnv, type Env } from '@mad/process';
import { readMasterKeys } from '@mad/provisioner';
import type { MetadataPlace } from './metadata-backup.ts';

/** Whether the settings name the databases of a system whose services run elsewhere. */
export const namesInstalled = (env: Env): boolean => Boolean(env['INSTALL_ADMIN_URL'] || env['INSTALL_ADMIN_URL_FILE']);

/**
 * Where the metadata of a system is whose services run elsewhere, from what `install` and its provisioner are told. Throws
 * a ConfigError.
 */
export function installedPlace(env: Env): MetadataPlace {
  return readEnv(env, (r) => {
    const migrateUrl = r.url('INSTALL_MIGRATE_URL');
    // Undefined where they could not be read, which is reported as it is.
    const keys = r.json('MAD_SERVICE_KEYS', serviceKeysSetting) as ServiceKeys | undefined;
    return {
      adminUrl: r.url('INSTALL_ADMIN_URL'),
      migrateUrl,
      database: URL.canParse(migrateUrl) ? decodeURIComponent(new URL(migrateUrl).pathname.slice(1)) : '',
      master: readMasterKeys(r),
      objectStoreUrl: r.url('OBJECT_STORE_URL'),
      erasureKeys: [keys?.['provisioner'] ?? []].flat(),
    };
  });
}
