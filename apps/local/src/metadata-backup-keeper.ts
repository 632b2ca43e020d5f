import { openObjectStore } from '@mad/object-store';
import { HOUR_MS, MINUTE_MS, Rounds, type Logger, type Metrics } from '@mad/process';
import { lastMetadataArchive, type BackupPolicy } from '@mad/provisioner';
import { backUpMetadata, type ArchivedPlace } from './metadata-backup.ts';

/** One that failed is tried again after so long. */
const RETRY_AFTER_MS = HOUR_MS;

export interface MetadataBackupKeeperOptions extends BackupPolicy {
  place: ArchivedPlace;
  logger: Logger;
  metrics: Metrics;
  /** Time between two looks, in milliseconds: a minute. */
  lookMs?: number;
  retryMs?: number;
}

/** Archives the metadata database and its keys when the newest archive, whoever made it, is old enough. */
export class MetadataBackupKeeper {
  readonly #options: MetadataBackupKeeperOptions;
  readonly #rounds: Rounds;
  /** When the last try failed; undefined when it did not. */
  #failedAt: number | undefined;

  constructor(options: MetadataBackupKeeperOptions) {
    this.#options = options;
    const { lookMs: everyMs = MINUTE_MS, logger, metrics } = options;
    const failed = metrics.gauge({
      name: 'metadata_backup_failed',
      help: '1 while the last try to archive the metadata database failed.',
      collect: () => {
        failed.set(this.#failedAt === undefined ? 0 : 1);
      },
    });
    this.#rounds = new Rounds(
      { everyMs, logger, failure: 'a backup of the metadata that was due was not made' },
      (signal) => this.#look(signal),
    );
  }

  /** Gives up one that is being made: it is due at the next start. */
  close(): Promise<void> {
    return this.#rounds.close();
  }

  async #look(signal: AbortSignal): Promise<void> {
    const { place, everyHours, keep, logger, retryMs = RETRY_AFTER_MS } = this.#options;
    if (everyHours === 0) return;
    if (this.#failedAt !== undefined && Date.now() - this.#failedAt < retryMs) return;
    try {
      const last = await lastMetadataArchive(openObjectStore(place.objectStoreUrl));
      if (last === undefined || Date.now() - last.getTime() >= everyHours * HOUR_MS) {
        const made = await backUpMetadata(place, { keep, signal });
        logger.info({ ...made, every_hours: everyHours }, 'metadata backup');
      }
      this.#failedAt = undefined;
    } catch (error) {
      if (signal.aborted) return;
      this.#failedAt = Date.now();
      throw error;
    }
  }
}
