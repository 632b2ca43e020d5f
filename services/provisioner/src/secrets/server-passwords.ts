import type { ServerRow } from '../db/entities/server.ts';
import type { MasterKeys } from './master-key.ts';

type Login = 'mad_provisioner_admin' | 'mad_migrator';

const aad = (server: string, login: Login): string => `mad server ${server} ${login}`;

/** What `database_servers` keeps of the passwords of a server's two administrative logins. */
export function sealServerPasswords(
  master: MasterKeys,
  server: string,
  passwords: { provisioner: string; migrator: string },
): Pick<ServerRow, 'provisioner_secret' | 'migrator_secret' | 'master_key_version'> {
  const provisioner = master.seal(Buffer.from(passwords.provisioner), aad(server, 'mad_provisioner_admin'));
  const migrator = master.seal(Buffer.from(passwords.migrator), aad(server, 'mad_migrator'));
  return {
    provisioner_secret: provisioner.sealed,
    migrator_secret: migrator.sealed,
    master_key_version: provisioner.version,
  };
}

/** The password of one of a server's administrative logins. Throws when the row was tampered with. */
export function serverPassword(
  master: MasterKeys,
  server: Pick<ServerRow, 'name' | 'provisioner_secret' | 'migrator_secret' | 'master_key_version'>,
  login: Login,
): string {
  const sealed = login === 'mad_migrator' ? server.migrator_secret : server.provisioner_secret;
  return master.open({ sealed, version: server.master_key_version }, aad(server.name, login)).toString();
}
