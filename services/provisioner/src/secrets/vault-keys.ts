import { readFile } from 'node:fs/promises';
import { Code, type ConnectError } from '@connectrpc/connect';
import { backoff, sleep } from '@mad/process';
import { rpcError } from '@mad/rpc';
import { MasterKeyError, type MasterKeys, type Standing } from './master-keys.ts';

const BACKOFF = { baseMs: 50, maxMs: 500 };
const MAX_ANSWER_BYTES = 256 * 1024;
/** Kinds of key that authenticate what goes with a secret. */
const AUTHENTICATED = ['aes128-gcm96', 'aes256-gcm96', 'chacha20-poly1305'];

/** A key of a Vault server. */
export interface VaultOptions {
  /** Of the server, e.g. "https://vault.example:8200". */
  url: string;
  /** Where its Transit engine is mounted. */
  mount: string;
  key: string;
  /** File with the token: read for each request, since an agent renews it there. */
  tokenPath: string;
  /** For one answer, with all attempts it takes, in milliseconds. */
  timeoutMs: number;
}

/** What repeating the request does not mend: the service refuses it, or there is no token to send. */
class Refused extends Error {
  override readonly name = 'Refused';
  /** What a caller is told; the message is for the log. */
  readonly what: string;
  readonly status: number | undefined;
  constructor(what: string, message: string, status?: number) {
    super(message);
    this.what = what;
    this.status = status;
  }
}

/**
 * Master keys that never leave a key service: the Transit secrets engine of HashiCorp Vault, or whatever speaks like it
 * (OpenBao does). Its documented calls `POST /v1/<mount>/encrypt/<key>` and `…/decrypt/<key>` with `associated_data`,
 * which the service authenticates, and `GET /v1/<mount>/keys/<key>`. What is sealed is the service's text `vault:v<version>:…`.
 * All of them may be repeated: none changes anything there.
 */
export function vaultKeys(options: VaultOptions): MasterKeys {
  const path = (verb: string): string => `${verb}/${encodeURIComponent(options.key)}`;
  return {
    source: 'vault',

    async seal(plain, aad) {
      const body = { plaintext: Buffer.from(plain).toString('base64'), associated_data: base64(aad) };
      const { ciphertext } = await serve(options, (signal) => ask(options, signal, 'POST', path('encrypt'), body));
      const version = typeof ciphertext === 'string' ? versionIn(ciphertext) : undefined;
      if (version === undefined) throw unavailable(options, 'answers in an unknown form');
      return { sealed: Buffer.from(ciphertext as string, 'latin1'), version };
    },

    async open({ sealed, version }, aad) {
      const ciphertext = sealed.toString('latin1');
      if (versionIn(ciphertext) !== version) {
        throw new MasterKeyError('KEY_ALTERED', `the key service did not seal it under version ${version}`);
      }
      const body = { ciphertext, associated_data: base64(aad) };
      const { plaintext } = await serve(options, async (signal) => {
        try {
          return await ask(options, signal, 'POST', path('decrypt'), body);
        } catch (error) {
          if (error instanceof Refused && error.status === 400) throw doesNotOpen(error, version);
          throw error;
        }
      });
      if (typeof plaintext !== 'string') throw unavailable(options, 'answers in an unknown form');
      return Buffer.from(plaintext, 'base64');
    },

    async standing() {
      const data = await serve(options, (signal) => ask(options, signal, 'GET', path('keys')));
      const problem = unfit(data);
      if (problem !== undefined) throw new Error(`the key ${options.key} of the key service ${problem}`);
      return standingOf(data);
    },
  };
}

const base64 = (text: string): string => Buffer.from(text).toString('base64');

function versionIn(ciphertext: string): number | undefined {
  const [, version] = /^vault:v([1-9]\d{0,8}):[A-Za-z0-9+/]+={0,2}$/.exec(ciphertext) ?? [];
  return version === undefined ? undefined : Number(version);
}

function doesNotOpen(cause: Refused, version: number): MasterKeyError {
  // The service has one status for both; its sentence about a version is the only difference.
  return /version|too old|too new/i.test(cause.message)
    ? new MasterKeyError('KEY_VERSION_UNKNOWN', `the key service opens nothing of version ${version} any more`, {
        cause,
      })
    : new MasterKeyError('KEY_ALTERED', `it does not open under the key service's key ${version}`, { cause });
}

/** Why a key must not be used. */
function unfit(data: Readonly<Record<string, unknown>>): string | undefined {
  if (!AUTHENTICATED.includes(String(data.type))) {
    return `is of the type ${String(data.type)}; it must be one of ${AUTHENTICATED.join(', ')}`;
  }
  if (data.derived === true) return 'derives keys from a context; it must not';
  if (data.exportable === true || data.allow_plaintext_backup === true) return 'can be taken out of it; it must not';
  return undefined;
}

function standingOf(data: Readonly<Record<string, unknown>>): Standing {
  const latest = Number(data.latest_version);
  const oldest = Number(data.min_decryption_version ?? 1);
  const held = Object.keys(data.keys ?? {}).map(Number);
  const older = held.filter((version) => version >= oldest && version !== latest).sort((a, b) => b - a);
  return { newest: `vault:${latest}`, older: older.map((version) => `vault:${version}`) };
}

/** Repeats what may succeed later until the time is over. Whatever a caller sees is UNAVAILABLE or says what is wrong. */
async function serve<T>(options: VaultOptions, attempt: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const until = performance.now() + options.timeoutMs;
  const signal = AbortSignal.timeout(options.timeoutMs);
  for (let tries = 0; ; tries += 1) {
    try {
      return await attempt(signal);
    } catch (error) {
      if (error instanceof MasterKeyError) throw error;
      if (error instanceof Refused) throw unavailable(options, error.what, error);
      const waitMs = backoff(tries, BACKOFF);
      if (performance.now() + waitMs >= until) throw unavailable(options, 'does not answer', error);
      await sleep(waitMs);
    }
  }
}

function refusal(status: number): string {
  if (status === 403) return 'refuses the token';
  if (status === 404) return 'has no such key';
  return `refuses the request with status ${status}`;
}

function unavailable({ key }: VaultOptions, what: string, cause?: unknown): ConnectError {
  const message = `the key service (Vault Transit, key ${key}) ${what}`;
  return rpcError(Code.Unavailable, 'KEY_SERVICE_UNAVAILABLE', message, { service: 'vault', key }, { cause });
}

/** One request. Throws Refused for what repeating does not mend, and an Error for the rest. */
async function ask(
  { url, mount, tokenPath }: VaultOptions,
  signal: AbortSignal,
  method: 'GET' | 'POST',
  path: string,
  body?: object,
): Promise<Readonly<Record<string, unknown>>> {
  const token = await tokenIn(tokenPath);
  const response = await fetch(new URL(`/v1/${mount}/${path}`, url), {
    method,
    headers: { 'x-vault-token': token, 'x-vault-request': 'true', 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    // Token and keys go to nobody but the address that was configured.
    redirect: 'error',
    signal,
  });
  const text = await limited(response);
  if (!response.ok) {
    const message = `${method} ${path}: status ${response.status}: ${errorsIn(text)}`;
    // 412: a standby that is behind; 429 and 5xx: too many requests, sealed, in maintenance, an error of its own.
    const passing = response.status === 412 || response.status === 429 || response.status >= 500;
    throw passing ? new Error(message) : new Refused(refusal(response.status), message, response.status);
  }
  const { data } = JSON.parse(text) as { data?: Readonly<Record<string, unknown>> };
  if (typeof data !== 'object' || data === null) throw new Error(`${method} ${path}: an answer without data`);
  return data;
}

async function tokenIn(path: string): Promise<string> {
  let token: string;
  try {
    token = (await readFile(path, 'utf8')).trim();
  } catch (cause) {
    throw new Refused('cannot be asked: its token cannot be read', (cause as Error).message);
  }
  if (!/^[\x21-\x7e]+$/.test(token))
    throw new Refused('cannot be asked: its token is not one', `${path} holds no token`);
  return token;
}

async function limited(response: Response): Promise<string> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of response.body ?? []) {
    bytes += part.length;
    if (bytes > MAX_ANSWER_BYTES) throw new Error('the answer is too long');
    parts.push(part);
  }
  return Buffer.concat(parts).toString();
}

/** What the service says is wrong: sentences of its own, never what was sent. */
function errorsIn(text: string): string {
  try {
    const { errors } = JSON.parse(text) as { errors?: unknown };
    return Array.isArray(errors) ? errors.join('; ').slice(0, 500) : 'no reason given';
  } catch {
    return 'no reason given';
  }
}
