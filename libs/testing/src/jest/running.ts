import type { TestServer } from './test-server.ts';

/** Jest may load setup and teardown as two modules of their own; what they share hangs on the process's globals. */
const KEY = Symbol.for('mad.testing.server');
const holder = globalThis as unknown as Record<symbol, TestServer | undefined>;

/** Remembers the run's server for the teardown. */
export function keep(server: TestServer): void {
  holder[KEY] = server;
}

/** The run's server, if the setup got as far as starting one. */
export function kept(): TestServer | undefined {
  return holder[KEY];
}
