import { bossInstallSql, bossUninstallSql, defineMigration } from '@mad/postgres';

/** The queue of the audit events that provisioner owes identity. */
export const Queue = defineMigration(import.meta.url, {
  up: bossInstallSql('provisioner_boss'),
  down: bossUninstallSql('provisioner_boss'),
});
