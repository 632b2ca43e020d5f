import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';

const jest = createRequire(import.meta.url).resolve('jest/bin/jest');
const reporter = new URL('../src/jest/closing-line.js', import.meta.url).pathname;

/** Runs Jest on the given test files and returns the last line of its output. */
async function lastLine(files: Record<string, string>, tally = ''): Promise<string> {
  const rootDir = await mkdtemp(join(tmpdir(), 'mad-closing-'));
  try {
    await writeFile(join(rootDir, 'package.json'), '{}');
    await writeFile(join(rootDir, 'jest.config.json'), JSON.stringify({ reporters: ['default', reporter] }));
    for (const [name, source] of Object.entries(files)) await writeFile(join(rootDir, name), source);
    const output = await new Promise<string>((settle) => {
      // A failing run is an answer here, not an error.
      const options = { cwd: rootDir, env: { ...process.env, MAD_TEST_TALLY: tally } };
      execFile(process.execPath, [jest, '--rootDir', rootDir], options, (_error, stdout) => settle(stdout));
    });
    return output.trimEnd().split('\n').at(-1)!;
  } finally {
    await rm(rootDir, { recursive: true, force: true });
  }
}

test('the last line of a run counts, and a file that does not load counts as failed', async () => {
  // Skipped and todo in the run that is looked at, to be counted: nothing of ours is skipped.
  const good = `test('a', () => {}); test('b', () => {}); test.skip('c', () => {}); test.todo('d');`;
  expect(await lastLine({ 'good.test.js': good })).toBe('2 passed, 0 failed, 2 skipped');
  const bad = { 'bad.test.js': `test('a', () => { throw new Error(); });`, 'unloadable.test.js': 'import (' };
  expect(await lastLine({ ...bad, 'good.test.js': good })).toBe('2 passed, 2 failed, 2 skipped');
});

test('runs that share a tally count together, in any order of good and bad', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'mad-tally-'));
  const tally = join(folder, 'tally');
  try {
    await writeFile(tally, '');
    const run = (source: string) => lastLine({ 'a.test.js': source }, tally);
    expect(await run(`test('a', () => {}); test('b', () => { throw new Error(); });`)).toBe(
      '1 passed, 1 failed, 0 skipped',
    );
    // As above: the skipped one is what is to be counted.
    expect(await run(`test('a', () => {}); test.skip('c', () => {});`)).toBe('2 passed, 1 failed, 1 skipped');
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
