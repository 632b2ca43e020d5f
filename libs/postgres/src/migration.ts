import { createHash } from 'node:crypto';
import type { MigrationInterface, QueryRunner } from 'typeorm';
import type { DataChange } from './data-change.ts';

/** What a migration does, in plain SQL. */
export interface MigrationSql {
  up: string;
  down: string;
  /** False for the few statements that Postgres refuses inside a transaction, e.g. CREATE INDEX CONCURRENTLY. */
  transaction?: boolean;
  /** What it changes row by row, if it is of that kind (`defineDataChange`). */
  data?: DataChange;
}

/** A migration as TypeORM takes it, with what others ask about it. */
export interface MigrationClass {
  new (): MigrationInterface;
  /** TypeORM's name for it: the description in PascalCase, then the file's time in milliseconds (13 digits). */
  readonly migrationName: string;
  /** The file's time, UTC, in milliseconds since 1970. */
  readonly time: number;
  /** SHA-256 over up and down, in hexadecimal. */
  readonly checksum: string;
  readonly sql: MigrationSql;
}

const FILE_NAME = /(?:^|\/)(\d{4})_(\d{2})_(\d{2})_(\d{2})(\d{2})_([a-z0-9_]+)\.[a-z]+$/;

function pascalCase(words: string): string {
  return words
    .split('_')
    .filter((word) => word !== '')
    .map((word) => word[0]!.toUpperCase() + word.slice(1))
    .join('');
}

/** Name and time from a file name; throws unless it reads `YYYY_MM_DD_HHMM_description` with a date that exists. */
function parseFileName(fileName: string): { migrationName: string; time: number } {
  const match = FILE_NAME.exec(fileName);
  if (match === null) throw new Error(`a migration's file is named YYYY_MM_DD_HHMM_description.ts: ${fileName}`);
  const [year, month, day, hour, minute] = match.slice(1, 6) as [string, string, string, string, string];
  const iso = `${year}-${month}-${day}T${hour}:${minute}`;
  const date = new Date(`${iso}:00Z`);
  // The engine moves the 31st of a shorter month on without a word.
  if (Number.isNaN(date.getTime()) || !date.toISOString().startsWith(iso)) {
    throw new Error(`a migration's file has a date that does not exist: ${fileName}`);
  }
  return { migrationName: `${pascalCase(match[6]!)}${date.getTime()}`, time: date.getTime() };
}

/**
 * A migration of plain SQL. `fileName` is the file's `import.meta.url`: the file keeps the readable date, TypeORM gets
 * the name it wants. Throws when the file is misnamed.
 */
export function defineMigration(fileName: string, sql: MigrationSql): MigrationClass {
  const { migrationName, time } = parseFileName(fileName);
  return class implements MigrationInterface {
    static readonly migrationName = migrationName;
    static readonly time = time;
    static readonly checksum = createHash('sha256').update(`${sql.up}\0${sql.down}`).digest('hex');
    static readonly sql = sql;
    readonly name = migrationName;
    readonly transaction = sql.transaction === false ? false : undefined;

    async up(runner: QueryRunner): Promise<void> {
      await runner.query(sql.up);
    }

    async down(runner: QueryRunner): Promise<void> {
      await runner.query(sql.down);
    }
  };
}
