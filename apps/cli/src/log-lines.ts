import { createReadStream, existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS } from '@mad/process';
import { CommandFailure, EXIT } from './failure.ts';

/** A line of the log, as services write it. */
export interface LogLine {
  time: string;
  level: string;
  service: string;
  msg?: string;
  trace_id?: string;
  span_id?: string;
  [field: string]: unknown;
}

/** From what nobody needs to know to what ends a process. */
export const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'];

/** What to show of a log. */
export interface LineFilter {
  service?: string;
  /** This and all that is more severe. */
  level?: string;
  /** A time, or how long ago: `90s`, `15m`, `2h`, `1d`. */
  since?: string;
}

const UNITS: Record<string, number> = { s: SECOND_MS, m: MINUTE_MS, h: HOUR_MS, d: DAY_MS };

/** The moment a `--since` means, in milliseconds since 1970. Throws for anything else. */
export function sinceMs(text: string, now: number): number {
  const ago = /^(\d+)([smhd])$/.exec(text);
  if (ago) return now - Number(ago[1]) * UNITS[ago[2]!]!;
  const time = Date.parse(text);
  if (Number.isNaN(time)) throw new CommandFailure(`--since ${text}: a time, or 90s, 15m, 2h, 1d`, EXIT.usage);
  return time;
}

/** Whether a line passes. Lines that are no JSON (a crash's last words) pass only where nothing is asked for. */
export function lineTest({ service, level, since }: LineFilter, now: number): (line: string) => boolean {
  if (level !== undefined && !LEVELS.includes(level)) {
    throw new CommandFailure(`--level ${level}: one of ${LEVELS.join(', ')}`, EXIT.usage);
  }
  const least = level === undefined ? 0 : LEVELS.indexOf(level);
  const from = since === undefined ? 0 : sinceMs(since, now);
  const asksNothing = service === undefined && level === undefined && since === undefined;
  return (text) => {
    const line = parseLine(text);
    if (line === undefined) return asksNothing;
    return (
      (service === undefined || line.service === service) &&
      LEVELS.indexOf(line.level) >= least &&
      Date.parse(line.time) >= from
    );
  };
}

/** A line as an object; undefined when it is none. */
export function parseLine(text: string): LogLine | undefined {
  try {
    const line: unknown = JSON.parse(text);
    return typeof line === 'object' && line !== null && 'time' in line ? (line as LogLine) : undefined;
  } catch {
    return undefined;
  }
}

/** The lines of a file that pass, oldest first; none where there is no file. `end` is the last byte read. */
export async function* linesOf(path: string, wanted: (line: string) => boolean, end?: number): AsyncGenerator<string> {
  if (!existsSync(path)) return;
  const input = createReadStream(path, end === undefined ? {} : { end: Math.max(0, end - 1) });
  for await (const line of createInterface({ input, crlfDelay: Infinity })) if (line !== '' && wanted(line)) yield line;
}
