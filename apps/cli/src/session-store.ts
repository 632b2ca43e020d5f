import { chmod, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/** A signed-in session with one gateway, for one organization or the platform. */
export interface StoredSession {
  url: string;
  /** The organization's slug, empty for the platform. */
  organization: string;
  /** The organization's id, empty for the platform. */
  orgId: string;
  email: string;
  accessToken: string;
  /** Milliseconds since the epoch. */
  accessExpiresAt: number;
  refreshToken: string;
}

/** The sessions of this person on this machine, newest sign-in first; a file only they can read. */
export interface SessionStore {
  /** The session for an organization, the platform (''), or the newest of an organization (undefined). */
  find(url: string, organization: string | undefined): Promise<StoredSession | undefined>;
  save(session: StoredSession): Promise<void>;
  remove(session: StoredSession): Promise<void>;
}

/** Opens the store in `home`. */
export function sessionStore(home: string): SessionStore {
  const path = join(home, 'sessions.json');
  const load = async (): Promise<StoredSession[]> => {
    try {
      return JSON.parse(await readFile(path, 'utf8')) as StoredSession[];
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
  };
  const store = async (sessions: StoredSession[]) => {
    await mkdir(dirname(path), { recursive: true });
    // Written beside and renamed: a killed command leaves the old file whole.
    const next = `${path}.${process.pid}`;
    await writeFile(next, JSON.stringify(sessions, null, 2), { mode: 0o600 });
    await chmod(next, 0o600);
    await rename(next, path);
  };
  const same = (a: StoredSession, b: StoredSession) => a.url === b.url && a.organization === b.organization;
  return {
    async find(url, organization) {
      const sessions = await load();
      return sessions.find(
        (one) =>
          one.url === url && (organization === undefined ? one.organization !== '' : one.organization === organization),
      );
    },
    async save(session) {
      await store([session, ...(await load()).filter((one) => !same(one, session))]);
    },
    async remove(session) {
      await store((await load()).filter((one) => !same(one, session)));
    },
  };
}
