import type { ServerRow } from '../db/entities/server.ts';
import type { MasterKeys } from './master-keys.ts';

type Login = 'mad_provisioner_admin' | 'mad_migrator';

const aad = (server: string, login: Login): string => `mad server ${server} ${login}`;

/** What `database_servers` keeps of the passwords of a server's two administrative logins. */
export type ServerSecrets = Pick<ServerRow, 'provisioner_secret' | 'migrator_secret' | 'master_key_version'>;

/** Seals the passwords of a server. A key service may be asked. */
export async function sealServerPasswords(
  master: MasterKeys,
  server: string,
  passwords: { provisioner: string; migrator: string },
): Promise<ServerSecrets> {
  for (;;) {
    const provisioner = await master.seal(Buffer.from(passwords.provisioner), aad(server, 'mad_provisioner_admin'));
    const migrator = await master.seal(Buffer.from(passwords.migrator), aad(server, 'mad_migrator'));
    // The row has one version for both; a key service may have got a newer key in between.
    if (provisioner.version !== migrator.version) continue;
    return {
      provisioner_secret: provisioner.sealed,
      migrator_secret: migrator.sealed,
      master_key_version: provisioner.version,
    };
  }
}

/** The password of one of a server's administrative logins. Throws like `MasterKeys.open`. */
export async function serverPassword(
  master: MasterKeys,
  server: Pick<ServerRow, 'name'> & ServerSecrets,
  login: Login,
): Promise<string> {
  const sealed = login === 'mad_migrator' ? server.migrator_secret : server.provisioner_secret;
  const password = await master.open({ sealed, version: server.master_key_version }, aad(server.name, login));
  return password.toString();
}
