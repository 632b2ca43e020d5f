import { Code } from '@connectrpc/connect';

const names: readonly string[] = Array.from({ length: 17 }, (_, code) =>
  code === 0 ? 'ok' : Code[code]!.replace(/(?<=[a-z])[A-Z]/g, (letter) => `_${letter}`).toLowerCase(),
);

/** `ok`, `not_found`, …: how logs and metrics name a code. */
export function codeName(code: Code | undefined): string {
  return names[code ?? 0] ?? 'unknown';
}
