import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../../..');
const read = (path: string) => readFileSync(resolve(root, path), 'utf8');
const documented = new Set(
  [...read('README.md').matchAll(/`([A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+)`/g)].map((match) => match[1]!),
);
const SOURCES = ['identity', 'catalog', 'results', 'provisioner', 'gateway', 'worker'].map(
  (one) => `services/${one}/src/config.ts`,
);

test.each([
  ...SOURCES,
  'apps/cli/src/settings.ts',
  'libs/process/src/run-main.ts',
  'libs/embedded-postgres/src/major-setting.ts',
  'libs/embedded-postgres/src/base-backup-settings.ts',
  'libs/process/src/tracing/tracing.ts',
])('the README names every setting of %s', (file) => {
  const names = [...read(file).matchAll(/r\s*\.\w+\(\s*'([A-Z0-9_]+_[A-Z0-9_]+)'/g)].map((match) => match[1]!);
  expect(names.length).toBeGreaterThan(0);
  expect(names.filter((name) => !documented.has(name))).toEqual([]);
});

test('the README names no setting that nobody reads', () => {
  const known = [
    ...SOURCES,
    'apps/cli/src/settings.ts',
    'apps/cli/src/commands/session.ts',
    'services/provisioner/src/migrate.ts',
    'libs/process/src/run-main.ts',
    'libs/embedded-postgres/src/major-setting.ts',
    'libs/embedded-postgres/src/base-backup-settings.ts',
    'libs/process/src/tracing/tracing.ts',
    // What the SDK of S3 reads.
    'libs/object-store/src/s3-store.ts',
  ]
    .map(read)
    .join('\n');
  // `NAME_FILE` stands for the file form of every setting.
  expect([...documented].filter((name) => name !== 'NAME_FILE' && !known.includes(name))).toEqual([]);
});
