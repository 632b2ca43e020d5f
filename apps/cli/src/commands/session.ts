import { randomBytes } from 'node:crypto';
import { createInterface } from 'node:readline';
import { text as readAll } from 'node:stream/consumers';
import { Writable } from 'node:stream';
import type { Command } from 'commander';
import { SessionService, WhoAmIResponseSchema } from '@mad/proto/identity';
import type { Env } from '@mad/process';
import { openApi } from '../api.ts';
import { action } from '../command.ts';
import { CommandFailure, EXIT } from '../failure.ts';
import { readLocalAdministrator } from '../local-system.ts';
import { jsonOf } from '../output.ts';
import { sessionStore } from '../session-store.ts';
import { asMember, signIn } from '../session.ts';

interface LoginOptions {
  email?: string;
  platform?: boolean;
  passwordStdin?: boolean;
}

/** login, logout, whoami. */
export function sessionCommands(mad: Command, env: Env): void {
  mad
    .command('login')
    .description('sign in; the password is asked for, or read from MAD_PASSWORD or stdin')
    .option('--email <address>', 'the account; the local administrator with --platform')
    .option('--platform', 'sign in as a platform administrator')
    .option('--password-stdin', 'read the password from stdin')
    .action(
      action<LoginOptions>(env, async ({ settings, output, options }) => {
        const local = options.platform && !options.email ? await readLocalAdministrator(settings.home) : undefined;
        const email = options.email ?? local?.email;
        if (!email) throw new CommandFailure('--email is required', EXIT.usage);
        const password = local?.password ?? (await readPassword(env, options.passwordStdin ?? false));
        const organization = options.platform ? '' : settings.organization;
        const session = await signIn(settings, { email, password, organization });
        const where = session.organization || 'the platform';
        output.answer(
          { ok: true, email, organization: session.organization, org_id: session.orgId },
          `signed in to ${where} as ${email}`,
        );
      }),
    );
  mad
    .command('logout')
    .description('end the session')
    .option('--platform', "end the platform administrator's session")
    .action(
      action<{ platform?: boolean }>(env, async ({ settings, output, options }) => {
        const store = sessionStore(settings.home);
        const session = await store.find(settings.url, options.platform ? '' : settings.organization || undefined);
        if (session) {
          const api = openApi(settings.url, () => Promise.resolve(undefined));
          await api.client(SessionService).logout({ refreshToken: session.refreshToken });
          await store.remove(session);
        }
        output.answer({ ok: true, ended: session !== undefined }, session ? 'signed out' : 'no session');
      }),
    );
  mad
    .command('whoami')
    .description('who the session belongs to and what it may do')
    .action(
      action(env, async ({ settings, output }) => {
        const { api } = await asMember(settings);
        const who = await api.client(SessionService).whoAmI({});
        output.answer(
          jsonOf(WhoAmIResponseSchema, who),
          `${who.email} in ${who.organization} as ${who.roles.join(', ')}\n${who.permissions.join(' ')}`,
        );
      }),
    );
}

/** A password nobody chose: 24 characters of base64url, 144 bits. */
export const newPassword = (): string => randomBytes(18).toString('base64url');

/** The password from the environment, from stdin, or asked for without showing it. */
async function readPassword(env: Env, fromStdin: boolean): Promise<string> {
  if (fromStdin) return (await readAll(process.stdin)).replace(/\r?\n$/, '');
  if (env.MAD_PASSWORD) return env.MAD_PASSWORD;
  if (!process.stdin.isTTY) {
    throw new CommandFailure('no password: set MAD_PASSWORD or use --password-stdin', EXIT.usage);
  }
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() });
  const prompt = createInterface({ input: process.stdin, output: silent, terminal: true });
  process.stderr.write('Password: ');
  return new Promise((resolve) => {
    prompt.question('', (answer) => {
      prompt.close();
      process.stderr.write('\n');
      resolve(answer);
    });
  });
}
