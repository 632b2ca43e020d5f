import type { Command } from 'commander';
import { uuidv7, type Env } from '@mad/process';
import { MemberSchema, MemberService, RoleSchema, RoleService } from '@mad/proto/identity';
import { action } from '../command.ts';
import { jsonOf, table } from '../output.ts';
import { allPages } from '../pages.ts';
import { asMember } from '../session.ts';
import { newPassword } from './session.ts';

/** user add, list, roles, remove: the people of the organization signed in to. */
export function userCommands(mad: Command, env: Env): void {
  const user = mad.command('user').description('the people of your organization');
  user
    .command('add <email>')
    .description('add a person; a password is made and shown once when the account is new')
    .option('--name <name>', 'the name shown to others')
    .option('--role <role...>', 'what they may do', ['user'])
    .action(
      action<{ name?: string; role: string[] }>(env, async ({ settings, output, options }, email) => {
        const { api, orgId } = await asMember(settings);
        const password = newPassword();
        const { member } = await api.client(MemberService).addMember({
          orgId,
          requestId: uuidv7(),
          email: email,
          displayName: options.name ?? email.split('@')[0]!,
          password,
          roles: options.role,
        });
        output.answer(
          { member: jsonOf(MemberSchema, member), password },
          `added ${email} as ${member!.roles.join(', ')}; first password, if the account is new: ${password}`,
        );
      }),
    );
  user
    .command('list')
    .description('members, in the order they joined')
    .action(
      action(env, async ({ settings, output }) => {
        const { api, orgId } = await asMember(settings);
        const members = await allPages(
          (pageToken) => api.client(MemberService).listMembers({ orgId, pageToken }),
          (page) => page.members,
        );
        const rows = members.map(({ user: person, roles }) => [person!.email, person!.userId, roles.join(', ')]);
        output.answer(
          members.map((one) => jsonOf(MemberSchema, one)),
          table(['email', 'user', 'roles'], rows),
        );
      }),
    );
  user
    .command('set-roles <user> <role...>')
    .description("replace a member's roles")
    .action(
      action(env, async ({ settings, output }, userId, ...roles) => {
        const { api, orgId } = await asMember(settings);
        const request = { orgId, userId: userId, requestId: uuidv7(), roles };
        const { member } = await api.client(MemberService).updateMember(request);
        output.answer(jsonOf(MemberSchema, member), `${member!.user!.email}: ${member!.roles.join(', ')}`);
      }),
    );
  user
    .command('remove <user>')
    .description('take a person out of the organization')
    .action(
      action(env, async ({ settings, output }, userId) => {
        const { api, orgId } = await asMember(settings);
        await api.client(MemberService).removeMember({ orgId, userId: userId, requestId: uuidv7() });
        output.answer({ ok: true }, 'removed');
      }),
    );
  user
    .command('roles')
    .description('the roles there are')
    .action(
      action(env, async ({ settings, output }) => {
        const { api, orgId } = await asMember(settings);
        const roles = await allPages(
          (pageToken) => api.client(RoleService).listRoles({ orgId, pageToken }),
          (page) => page.roles,
        );
        const rows = roles.map((role) => [role.name, role.builtIn ? 'built in' : 'own', role.permissions.join(' ')]);
        output.answer(
          roles.map((one) => jsonOf(RoleSchema, one)),
          table(['role', 'kind', 'permissions'], rows),
        );
      }),
    );
}
