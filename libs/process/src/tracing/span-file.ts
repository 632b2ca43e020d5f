import { appendFile, mkdir, rename, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { FinishedSpan, SpanSink } from './span.ts';

const MAX_FILE_BYTES = 32 * 1024 * 1024;
const MAX_WAITING = 20_000;
const FLUSH_MS = 200;

/** How spans are kept in a file. */
export interface SpanFileOptions {
  /** When the file would grow over this it becomes `<path>.1`, replacing the one before. Default 32 MiB. */
  maxBytes?: number;
  /** Told once when spans cannot be written. */
  onError: (error: unknown) => void;
}

/**
 * Keeps spans as JSON lines in a file readable by its owner alone: twice `maxBytes` at most. Spans that come faster than
 * the disk takes them are dropped, never waited for.
 */
export function spanFile(path: string, { maxBytes = MAX_FILE_BYTES, onError }: SpanFileOptions): SpanSink {
  let waiting: FinishedSpan[] = [];
  let size: number | undefined;
  let failed = false;
  let writing: Promise<void> = Promise.resolve();
  let timer: NodeJS.Timeout | undefined;

  const write = async (): Promise<void> => {
    clearTimeout(timer);
    timer = undefined;
    const lines = waiting.map((span) => `${JSON.stringify(spanLine(span))}\n`).join('');
    waiting = [];
    if (lines === '') return;
    try {
      if (size === undefined) {
        await mkdir(dirname(path), { recursive: true, mode: 0o700 });
        size = await stat(path).then(
          (info) => info.size,
          () => 0,
        );
      }
      const bytes = Buffer.byteLength(lines);
      if (size > 0 && size + bytes > maxBytes) {
        await rename(path, `${path}.1`);
        size = 0;
      }
      await appendFile(path, lines, { mode: 0o600 });
      size += bytes;
      failed = false;
    } catch (error) {
      size = undefined;
      if (!failed) onError(error);
      failed = true;
    }
  };
  const flush = (): Promise<void> => (writing = writing.then(write));

  return {
    write(span) {
      if (waiting.length >= MAX_WAITING) return;
      waiting.push(span);
      timer ??= setTimeout(() => void flush(), FLUSH_MS).unref();
    },
    close: flush,
  };
}

/** A span as its line says it: named as in log lines. */
export interface SpanLine {
  time: string;
  service: string;
  trace_id: string;
  span_id: string;
  parent_span_id?: string;
  name: string;
  kind: string;
  ms: number;
  error?: string;
  attributes?: Record<string, unknown>;
}

function spanLine(span: FinishedSpan): SpanLine {
  return {
    time: isoTime(span.startMs),
    service: span.service,
    trace_id: span.traceId,
    span_id: span.spanId,
    ...(span.parentSpanId === undefined ? {} : { parent_span_id: span.parentSpanId }),
    name: span.name,
    kind: span.kind,
    ms: Math.round(span.durationMs * 1000) / 1000,
    ...(span.error === undefined ? {} : { error: span.error }),
    ...(Object.keys(span.attributes).length === 0 ? {} : { attributes: span.attributes }),
  };
}

/** ISO 8601 with microseconds: spans of one millisecond keep their order. */
function isoTime(ms: number): string {
  const whole = Math.floor(ms);
  const micros = Math.min(999, Math.floor((ms - whole) * 1000));
  return new Date(whole).toISOString().replace('Z', `${String(micros).padStart(3, '0')}Z`);
}
