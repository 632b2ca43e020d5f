import { expect, test } from '@jest/globals';
import { generateSigningKey } from '@mad/auth';
import { ConfigError } from '@mad/process';
import { readWorkerConfig } from '../src/config.ts';

test('a worker needs its key and nothing else', async () => {
  const { privateJwk } = await generateSigningKey();
  const config = readWorkerConfig({ WORKER_SERVICE_KEY: JSON.stringify(privateJwk), WORKER_CORES: '3' });
  expect(config).toMatchObject({ catalogAddress: '127.0.0.1:7002', resultsAddress: '127.0.0.1:7003' });
  expect(config.resources.cores).toBe(3);
  expect(config.resources.memoryMb).toBeGreaterThanOrEqual(256);
  expect(config.heartbeatMs).toBeLessThanOrEqual(30_000);
});

test('every problem is said at once, and no key is repeated', () => {
  const read = () =>
    readWorkerConfig({ WORKER_SERVICE_KEY: '{"d":"very secret"}', WORKER_CORES: '0', WORKER_HEARTBEAT_MS: '60000' });
  expect(read).toThrow(ConfigError);
  expect(read).toThrow(/WORKER_CORES.*\n.*WORKER_SERVICE_KEY.*\n.*WORKER_HEARTBEAT_MS/);
  expect(read).not.toThrow(/very secret/);
});
