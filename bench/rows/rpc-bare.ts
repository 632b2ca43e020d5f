import { measureEcho } from '../echo.ts';
import type { Row } from '../row.ts';

/** An internal call with no interceptors: what our handlers and clients add to grpc-js. */
export const rpcBare: Row = {
  name: 'rpc-bare',
  run: (bench) =>
    measureEcho(bench, { name: 'rpc-bare', kind: 'bare', target: { of: 'ratio', atLeast: 0.95 }, interceptors: [] }),
};
