import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../../..');
let house: string;

/** A house with the project's own lint rules and nothing in it. */
beforeAll(() => {
  house = mkdtempSync(join(tmpdir(), 'mad-lint-'));
  cpSync(join(root, '.oxlintrc.json'), join(house, '.oxlintrc.json'));
  symlinkSync(join(root, 'node_modules'), join(house, 'node_modules'));
});
afterAll(() => rmSync(house, { recursive: true }));

/** What lint says of one file with one import. */
function lint(file: string, statement: string): { ok: boolean; text: string } {
  const path = join(house, file);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${statement}\n`);
  const { status, stdout } = spawnSync(join(root, 'node_modules/.bin/oxlint'), [file], {
    cwd: house,
    encoding: 'utf8',
  });
  rmSync(path);
  return { ok: status === 0, text: stdout };
}

test.each([
  ['a service never imports a service', 'services/catalog/src/x.ts', '@mad/identity'],
  ['a lib never imports a service', 'libs/tenancy/src/x.ts', '@mad/results'],
  ['a lower layer never imports a higher one', 'libs/process/src/x.ts', '@mad/rpc'],
  ['rpc never imports auth', 'libs/rpc/src/x.ts', '@mad/auth'],
  ['libs below tenancy never import it', 'libs/postgres/src/x.ts', '@mad/tenancy'],
  ['the command line never imports a service', 'apps/cli/src/x.ts', '@mad/catalog'],
  ['testing is for tests only', 'services/catalog/src/x.ts', '@mad/testing'],
  ['a service never starts a database', 'services/catalog/src/x.ts', '@mad/embedded-postgres'],
  ['domain/ does no I/O', 'services/catalog/src/domain/x.ts', 'node:fs'],
  ['domain/ knows no framework', 'services/catalog/src/domain/x.ts', 'typeorm'],
  ['domain/ knows nothing around it', 'services/catalog/src/domain/x.ts', '../rpc/job-service.ts'],
])('%s', (_rule, file, module) => {
  const { ok, text } = lint(file, `import { x } from '${module}';\nx();`);
  expect(text).toContain('no-restricted-imports');
  expect(ok).toBe(false);
});

test.each([
  ['apps/local may import services', 'apps/local/src/x.ts', "import { x } from '@mad/catalog';\nx();"],
  ['a service imports libs', 'services/catalog/src/x.ts', "import { x } from '@mad/postgres';\nx();"],
  ['a test imports testing', 'services/catalog/test/x.ts', "import { x } from '@mad/testing';\nx();"],
  ['domain/ imports domain/', 'services/catalog/src/domain/x.ts', "import { x } from './y.ts';\nx();"],
  [
    'domain/ imports types',
    'services/catalog/src/domain/x.ts',
    "import type { X } from '@mad/proto/catalog';\nexport type Y = X;",
  ],
])('allowed: %s', (_rule, file, statement) => {
  const { text } = lint(file, statement);
  expect(text).not.toContain('no-restricted-imports');
});

test('a cycle between files is refused', () => {
  mkdirSync(join(house, 'libs/process/src'), { recursive: true });
  const other = join(house, 'libs/process/src/y.ts');
  writeFileSync(other, "import { x } from './x.ts';\nexport const y = (): number => x() + 1;\n");
  const { text } = lint('libs/process/src/x.ts', "import { y } from './y.ts';\nexport const x = (): number => y();");
  rmSync(other);
  expect(text).toContain('no-cycle');
});
