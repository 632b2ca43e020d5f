import { execFile } from 'node:child_process';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from '@jest/globals';

const run = promisify(execFile);
const ROOT = resolve(import.meta.dirname, '../../..');

// They take parts of tests, which must not need Jest there.
test.each(['bench/main.ts', 'chaos/main.ts'])(
  '%s loads outside of tests and says how it is used',
  async (program) => {
    const { stdout } = await run(process.execPath, [program, '--help'], {
      cwd: ROOT,
      env: { PATH: process.env['PATH'] },
    });
    expect(stdout).toContain(`node ${program}`);
  },
  60_000,
);
