import { grpcTransport, type GrpcTransport, type GrpcTransportOptions } from '@mad/rpc';
import { serviceTokenInterceptor } from './service-token-interceptor.ts';
import { createServiceTokenSigner, type ServiceIdentity } from './service-token.ts';

/** Opens channels to other services ("host:port"); every call over them carries this service's token. */
export function serviceTransports(
  identity: ServiceIdentity,
): (address: string, options?: Pick<GrpcTransportOptions, 'keepalive'>) => GrpcTransport {
  const interceptors = [serviceTokenInterceptor(createServiceTokenSigner(identity))];
  return (address, options) => grpcTransport(address, { ...options, interceptors });
}
