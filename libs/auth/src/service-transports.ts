import { grpcTransport, type GrpcTransport } from '@mad/rpc';
import { serviceTokenInterceptor } from './service-token-interceptor.ts';
import { createServiceTokenSigner, type ServiceIdentity } from './service-token.ts';

/** Opens channels to other services ("host:port"); every call over them carries this service's token. */
export function serviceTransports(identity: ServiceIdentity): (address: string) => GrpcTransport {
  const interceptors = [serviceTokenInterceptor(createServiceTokenSigner(identity))];
  return (address) => grpcTransport(address, { interceptors });
}
