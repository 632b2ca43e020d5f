import { createServiceTokenSigner, generateSigningKey, serviceTokenInterceptor } from '@mad/auth';
import { measureEcho } from '../echo.ts';
import type { Row } from '../row.ts';

/** An internal call with everything: token, trace, access log, metrics, access control, validation, deadline. */
export const rpcFull: Row = {
  name: 'rpc-full',
  async run(bench) {
    const { privateJwk, publicJwk } = await generateSigningKey();
    const sign = createServiceTokenSigner({ service: 'catalog', privateJwk });
    return measureEcho(bench, {
      name: 'rpc-full',
      kind: 'full',
      target: { of: 'ratio', atLeast: 0.65 },
      interceptors: [serviceTokenInterceptor(sign)],
      args: [JSON.stringify({ catalog: publicJwk })],
    });
  },
};
