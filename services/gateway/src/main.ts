import { runMain } from '@mad/process';
import { readGatewayConfig } from './config.ts';
import { startGateway } from './start.ts';

await runMain('gateway', (logger) => startGateway(readGatewayConfig(process.env), { logger }));
