import { lastBaseBackupAttempt, listBaseBackups, takeBaseBackup, type BaseBackupPolicy } from '@mad/embedded-postgres';
import { HOUR_MS, MINUTE_MS, Rounds, SECOND_MS, type Logger, type Metrics } from '@mad/process';

/** One that failed is tried again after so long. */
const RETRY_AFTER_MS = HOUR_MS;

export interface BaseBackupKeeperOptions extends BaseBackupPolicy {
  /** The server's folder. */
  dataDir: string;
  /** A superuser's. */
  adminUrl: string;
  logger: Logger;
  metrics: Metrics;
  /** Time between two looks, in milliseconds: a minute. */
  lookMs?: number;
  retryMs?: number;
  /** How long the server may take to archive what a copy needs. */
  archiveWaitMs?: number;
}

/** Copies the files of a server that keeps its log when the last copy, whoever made it, is old enough. */
export class BaseBackupKeeper {
  readonly #options: BaseBackupKeeperOptions;
  readonly #rounds: Rounds;

  constructor(options: BaseBackupKeeperOptions) {
    this.#options = options;
    registerBaseBackupMetrics(options.metrics, options.dataDir);
    const { lookMs: everyMs = MINUTE_MS, logger } = options;
    this.#rounds = new Rounds({ everyMs, logger, failure: 'a base backup that was due was not made' }, (signal) =>
      this.#look(signal),
    );
  }

  /** Gives up one that is being made: it is due at the next start. */
  close(): Promise<void> {
    return this.#rounds.close();
  }

  async #look(signal: AbortSignal): Promise<void> {
    const { dataDir, adminUrl, everyHours, keep, archiveWaitMs, logger } = this.#options;
    if (!(await this.#isDue())) return;
    const base = await takeBaseBackup(dataDir, adminUrl, { keep, signal, ...(archiveWaitMs && { archiveWaitMs }) });
    logger.info({ ...base, every_hours: everyHours }, 'base backup');
  }

  async #isDue(): Promise<boolean> {
    const { dataDir, everyHours, retryMs = RETRY_AFTER_MS } = this.#options;
    if (everyHours === 0) return false;
    const newest = (await listBaseBackups(dataDir)).at(-1);
    if (newest !== undefined && ageMs(newest.endedAt) < everyHours * HOUR_MS) return false;
    const last = await lastBaseBackupAttempt(dataDir);
    return last === undefined || last.error === '' || ageMs(last.at) >= retryMs;
  }
}

const ageMs = (iso: string): number => Date.now() - Date.parse(iso);

/** Gauges over the copies, read when metrics are. */
function registerBaseBackupMetrics(metrics: Metrics, dataDir: string): void {
  const kept = metrics.gauge({
    name: 'base_backups',
    help: 'Base backups of the local server that are kept.',
    async collect() {
      kept.set((await listBaseBackups(dataDir)).length);
    },
  });
  const age = metrics.gauge({
    name: 'base_backup_age_seconds',
    help: 'Since the end of the newest base backup: recovery reads the log from there.',
    async collect() {
      const newest = (await listBaseBackups(dataDir)).at(-1);
      age.reset();
      if (newest !== undefined) age.set(ageMs(newest.endedAt) / SECOND_MS);
    },
  });
  const failed = metrics.gauge({
    name: 'base_backup_failed',
    help: '1 while the last try to make a base backup failed.',
    async collect() {
      failed.set((await lastBaseBackupAttempt(dataDir))?.error ? 1 : 0);
    },
  });
}
