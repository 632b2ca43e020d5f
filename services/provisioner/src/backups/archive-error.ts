/** Why an archive is refused. */
export type ArchiveFault =
  /** It does not begin like an archive of a format this release reads. */
  | 'ARCHIVE_UNKNOWN_FORMAT'
  /** It ends before its end. */
  | 'ARCHIVE_TRUNCATED'
  /** Some of it is not what was written, or not where it was written. */
  | 'ARCHIVE_ALTERED'
  /** It is another archive than the one asked for. */
  | 'ARCHIVE_SWAPPED'
  /** The key it was sealed under was destroyed, or does not open with this installation's master key. */
  | 'ARCHIVE_KEY_UNAVAILABLE'
  /** It was made by migrations that the schema's owner does not have. */
  | 'ARCHIVE_SCHEMA_UNKNOWN'
  /** What was restored of it is not what was archived. */
  | 'ARCHIVE_MISMATCH';

/** An archive that is refused as a whole; the message begins with the fault's name. */
export class ArchiveError extends Error {
  override readonly name = 'ArchiveError';
  readonly fault: ArchiveFault;

  constructor(fault: ArchiveFault, message: string, options?: ErrorOptions) {
    super(`${fault}: ${message}`, options);
    this.fault = fault;
  }
}
