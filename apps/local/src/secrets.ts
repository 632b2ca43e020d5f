import { randomBytes } from 'node:crypto';
import { chmod, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { generateSigningKey, type ServiceIdentity } from '@mad/auth';

type Jwk = ServiceIdentity['privateJwk'];

/** The services that sign calls of their own. */
export const SIGNERS = ['identity', 'catalog', 'results', 'provisioner', 'gateway', 'worker'] as const;
/** The services with a schema of the metadata database. */
export const METADATA_SERVICES = ['identity', 'catalog', 'provisioner'] as const;

/** Everything secret of a local system: made at its first start, kept in one file only its owner can read. */
export interface Secrets {
  administrator: { email: string; password: string };
  /** 32 bytes, base64, by service. */
  masterKeys: { identity: string; provisioner: string };
  passwords: {
    migrator: string;
    provisionerAdmin: string;
    services: Record<(typeof METADATA_SERVICES)[number], { app: string; system: string }>;
  };
  signingKeys: Record<(typeof SIGNERS)[number], { privateJwk: Jwk; publicJwk: Jwk }>;
}

const FILE = 'secrets.json';
const ADMINISTRATOR = 'administrator.json';

/** Reads the secrets of the system in `home`, making them first where there are none. */
export async function ensureSecrets(home: string): Promise<Secrets> {
  const known = await readSecrets(home);
  if (known) return known;
  const secrets = await newSecrets();
  await writePrivate(join(home, FILE), secrets);
  await writePrivate(join(home, ADMINISTRATOR), secrets.administrator);
  return secrets;
}

/** The secrets of the system in `home`, undefined where there is none. */
export async function readSecrets(home: string): Promise<Secrets | undefined> {
  try {
    return JSON.parse(await readFile(join(home, FILE), 'utf8')) as Secrets;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** A password nobody chose: 192 bits. */
export const newPassword = (): string => randomBytes(24).toString('base64url');

/** Makes everything secret of a system anew. */
export async function newSecrets(): Promise<Secrets> {
  const password = newPassword;
  const masterKey = () => randomBytes(32).toString('base64');
  const keys = await Promise.all(SIGNERS.map(async (service) => [service, await generateSigningKey()] as const));
  return {
    administrator: { email: 'admin@mad.example', password: randomBytes(18).toString('base64url') },
    masterKeys: { identity: masterKey(), provisioner: masterKey() },
    passwords: {
      migrator: password(),
      provisionerAdmin: password(),
      services: {
        identity: { app: password(), system: password() },
        catalog: { app: password(), system: password() },
        provisioner: { app: password(), system: password() },
      },
    },
    signingKeys: Object.fromEntries(
      keys.map(([service, { privateJwk, publicJwk }]) => [service, { privateJwk, publicJwk }]),
    ) as Secrets['signingKeys'],
  };
}

/** Writes beside and renames, so that a killed process leaves either nothing or the whole file. */
async function writePrivate(path: string, value: unknown): Promise<void> {
  const next = `${path}.${process.pid}`;
  await writeFile(next, JSON.stringify(value, null, 2), { mode: 0o600 });
  await chmod(next, 0o600);
  await rename(next, path);
}
