import { bossInstallSql, bossUninstallSql, defineMigration, idempotencyTableSql } from '@mad/postgres';

/** The answers of repeated requests, and the queue of what catalog must still do and tell others. */
export const Queue = defineMigration(import.meta.url, {
  up: `
${idempotencyTableSql('catalog')}
${bossInstallSql('catalog_boss')}
`,
  down: `
${bossUninstallSql('catalog_boss')}
DROP TABLE catalog.idempotency_keys;
`,
});
