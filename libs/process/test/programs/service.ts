/** A service that does what its first argument says, for run-main.test.ts. */
import { readEnv, runMain, sleep } from '../../src/index.ts';

const does = process.argv[2];
await runMain(
  'sample',
  async () => {
    if (does === 'misconfigured') readEnv({}, (r) => [r.url('DATABASE_URL'), r.integer('PORT')]);
    if (does === 'fails') throw new Error('no server');
    if (does === 'rejects later') setTimeout(() => void Promise.reject(new Error('forgotten')), 10);
    const alive = setInterval(() => {}, 1000);
    return {
      close: async () => {
        if (does === 'hangs on close') await sleep(60_000);
        clearInterval(alive);
      },
    };
  },
  { closeTimeoutMs: does === 'hangs on close' ? 200 : 10_000 },
);
