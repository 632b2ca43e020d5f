import { BackupService } from '@mad/proto/provisioner';
import { operationEnded } from '@mad/testing/operation-kills';
import { withRows } from '../operations.ts';
import type { Scenario } from '../scenario.ts';
import { insist, SCHEMA } from '../system.ts';
import { underWriting } from './under-writing.ts';

/** Archives are written while a client writes; each that is whole must pass its verification. */
export const backup: Scenario = {
  name: 'backup',
  weight: 6,
  run: (chaos, kills) =>
    underWriting(chaos, kills, ({ orgId }) => ({
      kind: 'backup',
      async ask() {
        const backups = (await chaos.system.platform()).client(BackupService);
        return { orgId, call: () => backups.createBackup({ orgId, schema: SCHEMA }) };
      },
      async ended(_orgId, { state }) {
        if (state !== 'succeeded') return [];
        const [newest] = await chaos.system.metadata<{ id: string }>(
          `SELECT backup_id AS id FROM provisioner.backups WHERE org_id = $1 AND completed_at IS NOT NULL
           ORDER BY completed_at DESC LIMIT 1`,
          orgId,
        );
        if (newest === undefined) return ['a backup succeeded and is not there'];
        const backups = (await chaos.system.platform()).client(BackupService);
        const { operation } = await insist(() => backups.verifyBackup({ backupId: newest.id }));
        const verified = await withRows(chaos, (rows) => operationEnded(rows, operation!.operationId));
        return verified.state === 'succeeded' ? [] : [`a backup is not what it should be: ${verified.error}`];
      },
    })),
};
