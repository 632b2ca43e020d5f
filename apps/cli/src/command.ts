import type { Command } from 'commander';
import type { Env } from '@mad/process';
import { createOutput, type Output } from './output.ts';
import { readSettings, type GlobalFlags, type Settings } from './settings.ts';

/** What a command's action gets beside its arguments. */
export interface Invocation<Options> {
  settings: Settings;
  output: Output;
  options: Options;
}

/** Wraps an action so that it gets settings and output made from the flags in force. */
export function action<Options extends object>(
  env: Env,
  run: (invocation: Invocation<Options>, ...args: string[]) => Promise<void>,
): (this: Command, ...args: unknown[]) => Promise<void> {
  return function (this: Command, ...args: unknown[]) {
    const positional = args.slice(0, this.registeredArguments.length).flat() as string[];
    const settings = readSettings(env, this.optsWithGlobals<GlobalFlags>());
    return run({ settings, output: createOutput(settings.json), options: this.opts<Options>() }, ...positional);
  };
}
