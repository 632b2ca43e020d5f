import { expect, test } from '@jest/globals';
import { clientOptions, mayPrepare } from '../src/index.ts';

test('a URL with escapes becomes options', () => {
  expect(clientOptions('postgres://us%40er:p%2Fw@127.0.0.1:6543/my%20db')).toMatchObject({
    host: '127.0.0.1',
    port: 6543,
    user: 'us@er',
    password: 'p/w',
    database: 'my db',
    ssl: false,
  });
  expect(clientOptions('postgres://a@[::1]/b')).toMatchObject({ host: '::1', port: 5432, ssl: false });
});

test('beyond loopback TLS verifies, unless the URL waives it by name', () => {
  expect(clientOptions('postgres://a:b@db.example/c').ssl).toEqual({ rejectUnauthorized: true });
  expect(clientOptions('postgres://a:b@db.example/c?sslmode=no-verify').ssl).toEqual({ rejectUnauthorized: false });
  expect(clientOptions('postgres://a:b@db.example/c?sslmode=disable').ssl).toBe(false);
  // Modes that encrypt to whoever answers and sound as if they did more.
  for (const mode of ['require', 'prefer', 'verify-ca', '']) {
    expect(() => clientOptions(`postgres://a:b@db.example/c?sslmode=${mode}`)).toThrow('is not supported');
  }
});

test('statements are prepared unless the URL forbids it', () => {
  expect(mayPrepare('postgres://a:b@db.example/c?sslmode=disable')).toBe(true);
  expect(mayPrepare('postgres://a:b@pooler.example/c?prepare=true')).toBe(true);
  expect(mayPrepare('postgres://a:b@pooler.example/c?prepare=false')).toBe(false);
  expect(() => mayPrepare('postgres://a:b@pooler.example/c?prepare=no')).toThrow('prepare=no must be true or false');
});
