import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

const NONCE = 12;
const TAG = 16;

/**
 * The other side of the door: a server of our own that answers like Vault's Transit engine as its API documentation
 * describes it, over real HTTP and with real AES-GCM. Its keys never leave it.
 */
export class TransitServer {
  readonly #keys: Buffer[] = [];
  #server: Server | undefined;
  #port = 0;
  /** Oldest version that still opens. */
  oldest = 1;
  token = randomBytes(12).toString('hex');
  /** What the key says of itself beside its versions. */
  traits: Record<string, unknown> = { type: 'aes256-gcm96', derived: false, exportable: false };
  /** Status codes of the next answers, whatever is asked. */
  readonly failures: number[] = [];
  /** Does not answer at all. */
  silent = false;
  readonly asked: string[] = [];

  constructor() {
    this.rotate();
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  get versions(): number {
    return this.#keys.length;
  }

  rotate(): void {
    this.#keys.push(randomBytes(32));
  }

  /** The first time on a free port, then on the same again. */
  async start(): Promise<void> {
    const server = createServer((request, response) => {
      void this.#answer(request).then((answer) => {
        if (answer === undefined) return;
        const { status, body } = answer;
        response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
      });
    });
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(this.#port, '127.0.0.1', resolve));
    this.#port = (server.address() as AddressInfo).port;
  }

  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }

  async #answer(request: IncomingMessage): Promise<{ status: number; body: object } | undefined> {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    this.asked.push(`${request.method} ${request.url}`);
    if (this.silent) return undefined;
    const refuse = (status: number, error: string) => ({ status, body: { errors: [error] } });
    const failure = this.failures.shift();
    if (failure !== undefined) return refuse(failure, 'Vault is sealed');
    if (request.headers['x-vault-token'] !== this.token) return refuse(403, 'permission denied');
    const input = (parts.length === 0 ? {} : JSON.parse(Buffer.concat(parts).toString())) as Record<string, string>;
    const aad = Buffer.from(input.associated_data ?? '', 'base64');
    switch (`${request.method} ${request.url}`) {
      case 'GET /v1/transit/keys/mad': {
        const versions = this.#keys.map((_key, index) => index + 1);
        const keys = Object.fromEntries(versions.filter((v) => v >= this.oldest).map((v) => [v, 1_700_000_000 + v]));
        const latest = { latest_version: versions.length, min_decryption_version: this.oldest };
        return { status: 200, body: { data: { name: 'mad', ...this.traits, ...latest, keys } } };
      }
      case 'POST /v1/transit/encrypt/mad': {
        const nonce = randomBytes(NONCE);
        const cipher = createCipheriv('aes-256-gcm', this.#keys.at(-1)!, nonce).setAAD(aad);
        const plain = Buffer.from(input.plaintext!, 'base64');
        const sealed = Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
        const ciphertext = `vault:v${this.#keys.length}:${sealed.toString('base64')}`;
        return { status: 200, body: { data: { ciphertext, key_version: this.#keys.length } } };
      }
      case 'POST /v1/transit/decrypt/mad': {
        const [, version = '', encoded = ''] = /^vault:v(\d+):(.*)$/.exec(input.ciphertext ?? '') ?? [];
        if (Number(version) < this.oldest) {
          return refuse(400, 'ciphertext or signature version is disallowed by policy (too old)');
        }
        const key = this.#keys[Number(version) - 1];
        if (key === undefined) return refuse(400, 'invalid ciphertext: version is too new');
        const sealed = Buffer.from(encoded, 'base64');
        try {
          const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, NONCE), { authTagLength: TAG });
          decipher.setAAD(aad).setAuthTag(sealed.subarray(sealed.length - TAG));
          const plain = [decipher.update(sealed.subarray(NONCE, sealed.length - TAG)), decipher.final()];
          return { status: 200, body: { data: { plaintext: Buffer.concat(plain).toString('base64') } } };
        } catch {
          return refuse(400, 'cipher: message authentication failed');
        }
      }
      default:
        return refuse(404, 'no handler for route');
    }
  }
}
