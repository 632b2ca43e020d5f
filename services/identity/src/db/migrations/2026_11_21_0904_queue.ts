import { bossInstallSql, bossUninstallSql, defineMigration, idempotencyTableSql } from '@mad/postgres';

/** The answers of repeated requests, and the queue of what identity must tell the provisioner. */
export const Queue = defineMigration(import.meta.url, {
  up: `
${idempotencyTableSql('identity')}
${bossInstallSql('identity_boss')}
`,
  down: `
${bossUninstallSql('identity_boss')}
DROP TABLE identity.idempotency_keys;
`,
});
