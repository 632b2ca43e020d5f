import { createClient, type Client, type Interceptor, type Transport } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import type { DescService } from '@bufbuild/protobuf';

/** The gateway as typed clients. */
export interface Api {
  client<S extends DescService>(service: S): Client<S>;
  transport: Transport;
}

/** Opens the gateway; `bearer` gives the credential of each call, undefined for public calls. */
export function openApi(url: string, bearer: () => Promise<string | undefined>): Api {
  const authorize: Interceptor = (next) => async (request) => {
    const credential = await bearer();
    if (credential) request.header.set('authorization', `Bearer ${credential}`);
    return next(request);
  };
  const transport = createConnectTransport({
    baseUrl: url,
    httpVersion: '1.1',
    useBinaryFormat: true,
    interceptors: [authorize],
  });
  return { transport, client: (service) => createClient(service, transport) };
}
