import type { EnvReader } from '@mad/process';
import { PG_MAJORS, type PgMajor } from './binaries.ts';

/** The major to make new data with; undefined for the usual one. */
export function readPostgresMajor(r: EnvReader): PgMajor | undefined {
  const text = r.string('MAD_POSTGRES_MAJOR', { optional: true });
  if (text === undefined) return undefined;
  const major = PG_MAJORS.find((one) => String(one) === text);
  if (major === undefined) r.problem('MAD_POSTGRES_MAJOR', `must be one of ${PG_MAJORS.join(', ')}`);
  return major;
}
