import { once } from 'node:events';
import { createReadStream, existsSync, statSync, unwatchFile, watchFile } from 'node:fs';
import type { Command } from 'commander';
import type { Env, SpanLine } from '@mad/process';
import { action } from '../command.ts';
import { CommandFailure, EXIT } from '../failure.ts';
import { lineTest, linesOf, parseLine, type LineFilter, type LogLine } from '../log-lines.ts';
import { logFile, spanFiles } from '../local-system.ts';
import { traceText, type TraceRecord } from '../trace-tree.ts';

interface LogOptions extends LineFilter {
  follow?: boolean;
  lines: number;
  trace?: string;
}

/** A whole trace id, or enough of its beginning, as sessions of the database carry it. */
const TRACE_ID = /^[0-9a-f]{8,32}$/;

/** logs: what the local system said, and one request's way through it. */
export function logCommand(mad: Command, env: Env): void {
  mad
    .command('logs')
    .description("the local system's log, one JSON object a line")
    .option('--follow', 'go on as it grows')
    .option('--lines <n>', 'how many to show first', Number, 100)
    .option('--service <name>', 'only this service')
    .option('--level <level>', 'this level and all that is more severe')
    .option('--since <time>', 'a time, or how long ago: 90s, 15m, 2h, 1d')
    .option(
      '--trace <id>',
      'every span and line of one trace, as a tree with durations; exit code 3 when it is unknown',
    )
    .action(
      action<LogOptions>(env, async ({ settings, output, options }) => {
        const path = logFile(settings.home);
        if (!existsSync(path)) throw new CommandFailure(`no log at ${path}`, EXIT.notFound);
        if (options.trace !== undefined) {
          const record = await readTrace(settings.home, options.trace.toLowerCase(), options);
          output.answer(record, traceText(record));
          return;
        }
        const wanted = lineTest(options, Date.now());
        const { size } = statSync(path);
        const last: string[] = [];
        for await (const line of linesOf(path, wanted, size)) {
          last.push(line);
          if (last.length > options.lines) last.shift();
        }
        if (output.json)
          output.answer(
            last.map(parseLine).filter((line) => line !== undefined),
            '',
          );
        else if (last.length > 0) process.stdout.write(`${last.join('\n')}\n`);
        if (options.follow) await follow(path, size, wanted);
      }),
    );
}

/** Everything the local system wrote of a trace. Throws a failure with exit code 3 when that is nothing. */
async function readTrace(home: string, id: string, filter: LineFilter): Promise<TraceRecord> {
  if (!TRACE_ID.test(id)) throw new CommandFailure(`--trace ${id}: 8 to 32 hexadecimal digits`, EXIT.usage);
  const mark = `"trace_id":"${id}`;
  const ofTrace = (line: string): boolean => line.includes(mark);
  const passes = lineTest(filter, Date.now());
  const spans: SpanLine[] = [];
  const lines: LogLine[] = [];
  for (const path of spanFiles(home)) {
    for await (const text of linesOf(path, ofTrace)) {
      const span = parseLine(text) as unknown as SpanLine | undefined;
      // A span has no level, and a trace is short: of the filter only the service is meant for it.
      if (span && (filter.service === undefined || span.service === filter.service)) spans.push(span);
    }
  }
  for await (const text of linesOf(logFile(home), (line) => ofTrace(line) && passes(line)))
    lines.push(parseLine(text)!);
  const ids = new Set([...spans, ...lines].map(({ trace_id: traceId }) => traceId!));
  if (ids.size === 0) throw new CommandFailure(`trace ${id} is unknown here`, EXIT.notFound);
  if (ids.size > 1) throw new CommandFailure(`--trace ${id}: ${ids.size} traces begin so`, EXIT.usage);
  const inTime = (a: { time: string }, b: { time: string }): number => a.time.localeCompare(b.time);
  return { trace_id: [...ids][0]!, spans: spans.toSorted(inTime), lines: lines.toSorted(inTime) };
}

/** Prints what is appended to a file until the process is interrupted. */
async function follow(path: string, from: number, wanted: (line: string) => boolean): Promise<void> {
  let position = from;
  let rest = '';
  watchFile(path, { interval: 200 }, ({ size }) => {
    const start = position;
    position = size;
    if (size <= start) return;
    const stream = createReadStream(path, { start, end: size - 1, encoding: 'utf8' });
    stream.on('data', (text) => {
      const lines = (rest + String(text)).split('\n');
      rest = lines.pop()!;
      for (const line of lines.filter(wanted)) process.stdout.write(`${line}\n`);
    });
  });
  await once(process, 'SIGINT');
  unwatchFile(path);
}
