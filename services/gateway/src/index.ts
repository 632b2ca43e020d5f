export { readGatewayConfig, type GatewayConfig } from './config.ts';
export { startGateway, type Gateway } from './start.ts';
