import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';

interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Runs the sample service and signals it once it says that it started. */
function run(does: string, signals: NodeJS.Signals[] = []): Promise<Ended> {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'programs/service.ts'), does]);
  return new Promise((resolve, reject) => {
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (data: Buffer) => {
      stdout += data.toString();
      if (!stdout.includes('"started"')) return;
      for (const signal of signals.splice(0)) child.kill(signal);
    });
    child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
}

test.each(['SIGTERM', 'SIGINT'] as const)('%s closes the service and exits 0', async (signal) => {
  const ended = await run('works', [signal]);
  expect(ended.code).toBe(0);
  expect(ended.stdout).toContain('"closed"');
});

test('a wrong configuration names every setting and exits 2', async () => {
  const ended = await run('misconfigured');
  expect(ended.code).toBe(2);
  expect(ended.stderr).toContain('DATABASE_URL: is required');
  expect(ended.stderr).toContain('PORT: is required');
});

test('a start that fails is logged and exits 1', async () => {
  const ended = await run('fails');
  expect(ended.code).toBe(1);
  expect(ended.stdout).toContain('no server');
});

test('a forgotten rejection closes the service and exits 1', async () => {
  const ended = await run('rejects later');
  expect(ended.code).toBe(1);
  expect(ended.stdout).toContain('forgotten');
  expect(ended.stdout).toContain('"closing"');
});

test('a close that hangs is cut after its time', async () => {
  const ended = await run('hangs on close', ['SIGTERM']);
  expect(ended.code).toBe(1);
  expect(ended.stdout).toContain('close did not finish in time');
});
