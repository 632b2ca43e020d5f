import { globSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';

const root = fileURLToPath(new URL('../../../', import.meta.url));

// An 'error' event that nobody hears ends the process: of a service, because one organization's server went down.
test('nobody in a service opens a connection whose loss nobody hears', () => {
  const sources = globSync('{libs,services}/*/src/**/*.ts', { cwd: root }).filter(
    (file) => !file.startsWith('libs/testing/'),
  );
  const opening = sources.filter((file) => /new pg\.(Client|Pool)\(/.test(readFileSync(root + file, 'utf8')));
  expect(opening.length).toBeGreaterThan(3);
  const deaf = opening.filter((file) => {
    const text = readFileSync(root + file, 'utf8');
    return text.split(/new pg\.(?:Client|Pool)\(/).length - 1 > text.split(/\.on\('error'/).length - 1;
  });
  expect(deaf).toEqual([]);
});
