import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmod,
  chown,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, parse, resolve } from 'node:path';
import { promisify } from 'node:util';
import type { Account } from './account.ts';
import { PG_MAJORS, type Binaries, type PgMajor } from './binaries.ts';

const run = promisify(execFile);

/** Where data go that the server's account cannot reach at their own place; survives a reboot, unlike /tmp. */
const REACHABLE_HOME = '/var/lib/mad-postgres';

/** The name of the superuser of every embedded server. */
export const SUPERUSER = 'postgres';

function passwordPath(dataDir: string): string {
  return join(dataDir, 'superuser-password');
}

export async function readPassword(dataDir: string): Promise<string> {
  return (await readFile(passwordPath(dataDir), 'utf8')).trim();
}

/**
 * The major to run: that of the data where there are some, else the one asked for, else the usual one. Throws when the
 * data are of another major than asked for, or of one there is no package for.
 */
export async function majorOf(dataDir: string, asked: PgMajor | undefined): Promise<PgMajor> {
  const text = await readFile(join(dataDir, 'data', 'PG_VERSION'), 'utf8').catch(() => undefined);
  if (text === undefined) return asked ?? PG_MAJORS[0];
  const found = PG_MAJORS.find((major) => major === Number.parseInt(text, 10));
  if (found === undefined) throw new Error(`the data in ${dataDir} are of Postgres ${text.trim()}, which is not here`);
  if (asked !== undefined && asked !== found) {
    throw new Error(`the data in ${dataDir} are of Postgres ${found}: they cannot be run by Postgres ${asked}`);
  }
  return found;
}

/** The superuser's URL of the server of `dataDir` that listens on `port`. Holds the password. */
export async function superuserUrl(dataDir: string, port: number): Promise<string> {
  return `postgres://${SUPERUSER}:${await readPassword(dataDir)}@127.0.0.1:${port}/postgres`;
}

/** True when every folder on the way to `path` may be entered by an account that owns none of them. */
async function reachable(path: string): Promise<boolean> {
  for (let folder = resolve(path); folder !== parse(folder).root; folder = dirname(folder)) {
    const info = await stat(folder);
    if ((info.mode & 0o001) === 0) return false;
  }
  return true;
}

/** The folder in which the new data directory is made. */
async function homeFor(dataDir: string, account: Account | undefined): Promise<string> {
  if (account === undefined || (await reachable(dataDir))) return dataDir;
  await mkdir(REACHABLE_HOME, { recursive: true, mode: 0o711 });
  return REACHABLE_HOME;
}

async function runInitdb(binaries: Binaries, pgData: string, password: string, account?: Account): Promise<void> {
  const secrets = await mkdtemp(join(tmpdir(), 'mad-initdb-'));
  const passwordFile = join(secrets, 'password');
  // The builtin provider sorts and folds case alike on every platform; before 17 only the system's locales exist.
  const locale =
    binaries.major >= 17
      ? ['--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8']
      : ['--locale=C.UTF-8'];
  try {
    await writeFile(passwordFile, password, { mode: 0o600 });
    if (account !== undefined) {
      await chown(secrets, account.uid, account.gid);
      await chown(passwordFile, account.uid, account.gid);
    }
    await run(
      binaries.initdb,
      [
        `--pgdata=${pgData}`,
        `--username=${SUPERUSER}`,
        `--pwfile=${passwordFile}`,
        '--auth=scram-sha-256',
        '--encoding=UTF8',
        ...locale,
        // Durability of an empty database is not worth 300 ms: a crash here starts over.
        '--no-sync',
      ],
      { ...account, cwd: '/', env: { PATH: process.env['PATH'] ?? '', TZ: 'UTC' } },
    );
  } catch (cause) {
    const detail = (cause as { stderr?: string }).stderr?.trim() ?? '';
    throw new Error(`initdb failed for ${pgData}: ${detail || (cause as Error).message}`, { cause });
  } finally {
    await rm(secrets, { recursive: true, force: true });
  }
}

/**
 * Makes a new database cluster at `dataDir`/data unless there is one. A crash half-way leaves a draft that the
 * next call throws away. Returns true when it made one.
 */
export async function initialize(dataDir: string, binaries: Binaries, account?: Account): Promise<boolean> {
  await mkdir(dataDir, { recursive: true });
  const finished = join(dataDir, 'data');
  if (await stat(join(finished, 'PG_VERSION')).catch(() => undefined)) return false;
  // The server's account must pass through, and nobody but us may list.
  if (account !== undefined) await chmod(dataDir, 0o711);
  for (const name of await readdir(dataDir)) {
    if (name.startsWith('draft-')) await rm(join(dataDir, name), { recursive: true, force: true });
  }
  const home = await homeFor(dataDir, account);
  const draft = await mkdtemp(join(home, 'draft-'));
  const password = randomBytes(24).toString('base64url');
  if (account !== undefined) await chown(draft, account.uid, account.gid);
  await runInitdb(binaries, draft, password, account);
  await writeFile(passwordPath(dataDir), password, { mode: 0o600 });
  if (home === dataDir) {
    await rename(draft, finished);
  } else {
    const place = draft.replace('draft-', 'data-');
    await rename(draft, place);
    await rm(finished, { force: true }); // a link whose target is gone
    await symlink(place, finished);
  }
  return true;
}
