import type { ObjectStore } from '@mad/object-store';
import { SECOND_MS, type Metrics } from '@mad/process';
import { lastMetadataArchive } from './metadata.ts';

/** The age of the newest archive of metadata, whoever made it; without a value where there is none or nobody knows. */
export function registerMetadataBackupMetrics(metrics: Metrics, objects: ObjectStore): void {
  const age = metrics.gauge({
    name: 'metadata_backup_age_seconds',
    help: 'Since the newest archive of the metadata database: keys made since are in none.',
    async collect() {
      const last = await lastMetadataArchive(objects).catch(() => undefined);
      if (last === undefined) age.remove();
      else age.set((Date.now() - last.getTime()) / SECOND_MS);
    },
  });
}
