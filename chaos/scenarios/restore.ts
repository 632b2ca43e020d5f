import { sleep } from '@mad/process';
import { BackupService } from '@mad/proto/provisioner';
import { operationEnded } from '@mad/testing/operation-kills';
import { withRows } from '../operations.ts';
import type { Chaos, Scenario } from '../scenario.ts';
import { insist, SCHEMA } from '../system.ts';
import { underWriting } from './under-writing.ts';

const WRITING_MS = 300;

/** A backup of what the client has written takes the place of the database, or does not; either way every row is there once. */
export const restore: Scenario = {
  name: 'restore',
  weight: 12,
  run: (chaos, kills) =>
    underWriting(chaos, kills, ({ orgId }, ledger) => ({
      kind: 'restore',
      async ask() {
        await ledger.begin();
        await sleep(WRITING_MS);
        // What is written after the backup is what a restore is asked to undo.
        await ledger.pause();
        const backupId = await backUp(chaos, orgId);
        const backups = (await chaos.system.platform()).client(BackupService);
        return { orgId, call: () => backups.restoreBackup({ backupId, keepHours: 0 }) };
      },
      async ended() {
        const { lost, doubled } = await ledger.compare();
        return lost + doubled === 0 ? [] : [`after a restore ${lost} rows were lost, ${doubled} doubled`];
      },
    })),
};

async function backUp(chaos: Chaos, orgId: string): Promise<string> {
  const backups = (await chaos.system.platform()).client(BackupService);
  const { operation } = await insist(() => backups.createBackup({ orgId, schema: SCHEMA }));
  const { state, error } = await withRows(chaos, (rows) => operationEnded(rows, operation!.operationId));
  if (state !== 'succeeded') throw new Error(`a backup nobody disturbed ended ${state}: ${error}`);
  const [newest] = await chaos.system.metadata<{ id: string }>(
    `SELECT backup_id AS id FROM provisioner.backups WHERE org_id = $1 AND completed_at IS NOT NULL
     ORDER BY completed_at DESC LIMIT 1`,
    orgId,
  );
  return newest!.id;
}
