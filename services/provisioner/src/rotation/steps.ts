import { loginName, schemaApp, type Slot } from '../domain/names.ts';
import type { StepName } from '../domain/plan.ts';
import { lockHeld, type Held } from '../operations/lease.ts';
import type { Step, Subject } from '../provisioning/steps.ts';
import { newPassword, noteDataKey, prepareDataKey, sealPassword } from '../secrets/data-keys.ts';
import type { LoginRole } from '../servers/login-roles.ts';
import { endSessions, setPassword } from '../servers/tenant-database.ts';

/** The login that is to be used from now on: settled when the rotation began, so that a repeat never turns back. */
const slotOf = ({ params }: Held): Slot => params.slot as Slot;

function loginOf({ logins, tenant }: Subject, held: Held): LoginRole {
  const name = loginName(tenant.schema, tenant.org_id, slotOf(held));
  const login = logins.find((one) => one.name === name);
  if (login === undefined) throw new Error(`the tenant has no login ${name}`);
  return login;
}

/** The steps of a rotation. Nobody uses the login they work on before the last one, which is one transaction. */
export const ROTATION_STEPS: Readonly<Record<'renew_login' | 'verify_login' | 'switch_login', Step>> = {
  async renew_login({ database, master }, client, subject, held) {
    const { org_id: orgId, schema } = subject.tenant;
    const slot = slotOf(held);
    const login = loginOf(subject, held);
    // For the steps after this one too; a later run reads it.
    login.password = newPassword();
    const prepared = await prepareDataKey((fn) => database.asSystem(fn), master, orgId);
    // Noted before it is set: after a crash between the two the next run makes another one.
    const leftOver = await database.asSystem(async (tx) => {
      await lockHeld(tx, held);
      const dataKey = await noteDataKey(tx, master, prepared);
      const [row] = await tx.query<{ left_over: boolean }>(
        `UPDATE provisioner.tenant_credentials SET secret = $4, data_key_version = $5, set_at = now()
         WHERE org_id = $1 AND schema = $2 AND slot = $3 AND NOT active RETURNING retire_at IS NOT NULL AS left_over`,
        [orgId, schema, slot, sealPassword(dataKey, schema, login.name, login.password), dataKey.version],
      );
      if (row === undefined) throw new Error(`the login ${slot} is in use already`);
      return row.left_over;
    });
    const now = await setPassword(client, login);
    // Sessions within their grace go on until it is over; without one, nobody has a right to be there.
    if (!leftOver) await endSessions(client, login.name, now);
    else {
      await database.asSystem((tx) =>
        tx.execute(
          `UPDATE provisioner.tenant_credentials SET sessions_before = $4
           WHERE org_id = $1 AND schema = $2 AND slot = $3 AND retire_at IS NOT NULL`,
          [orgId, schema, slot, now],
        ),
      );
    }
  },

  async verify_login({ connections }, _client, subject, held) {
    const { tenant, server } = subject;
    const { name: user, password } = loginOf(subject, held);
    const { database_name: database, schema } = tenant;
    const alike = await connections.as(server, { user, password, database }, async (client) => {
      // As its twin, which may have been made read-only.
      const twin = loginName(schema, tenant.org_id, slotOf(held) === 'a' ? 'b' : 'a');
      const { rows } = await client.query<{ alike: boolean }>(
        `SELECT pg_has_role(current_user, $1, 'USAGE') = pg_has_role($2::name, $1, 'USAGE') AS alike`,
        [schemaApp(schema), twin],
      );
      return rows[0]!.alike;
    });
    if (!alike) throw new Error(`${user} has not the rights of the login it is to replace`);
  },

  async switch_login({ database, rotateGraceMs }, _client, { tenant: { org_id: orgId, schema } }, held) {
    await database.asSystem(async (tx) => {
      await lockHeld(tx, held);
      // Beginning anew after a crash: the grace counts from when the routers are told.
      await tx.execute(
        `UPDATE provisioner.tenant_credentials
         SET active = false, retire_at = now() + $4 * interval '1 millisecond', sessions_before = NULL
         WHERE org_id = $1 AND schema = $2 AND slot <> $3`,
        [orgId, schema, slotOf(held), rotateGraceMs],
      );
      await tx.execute(
        `UPDATE provisioner.tenant_credentials SET active = true WHERE org_id = $1 AND schema = $2 AND slot = $3`,
        [orgId, schema, slotOf(held)],
      );
    });
  },
} satisfies Partial<Record<StepName, Step>>;
