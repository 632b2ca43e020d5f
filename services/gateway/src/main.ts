import { runMain } from '@mad/process';
import { readGatewayConfig } from './config.ts';
import { startGateway } from './start.ts';

await runMain('gateway', (deps) => startGateway(readGatewayConfig(process.env), deps));
