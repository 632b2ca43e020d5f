import { runMain } from '@mad/process';
import { readIdentityConfig } from './config.ts';
import { startIdentity } from './start.ts';

await runMain('identity', (deps) => startIdentity(readIdentityConfig(process.env), deps));
