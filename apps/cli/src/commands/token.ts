import type { Command } from 'commander';
import { timestampDate } from '@bufbuild/protobuf/wkt';
import { CreateTokenResponseSchema, TokenSchema, TokenService } from '@mad/proto/identity';
import type { Env } from '@mad/process';
import { action } from '../command.ts';
import { jsonOf, table } from '../output.ts';
import { allPages } from '../pages.ts';
import { asMember, asPlatform } from '../session.ts';

/** token create, list, revoke: API tokens for programs. */
export function tokenCommands(mad: Command, env: Env): void {
  const token = mad.command('token').description('API tokens for programs');
  token
    .command('create <name>')
    .description('make a token; its secret is shown once')
    .option('--scope <permission...>', 'limit it to these permissions; default: all of yours', [])
    .option('--days <n>', 'life in days', Number, 90)
    .action(
      action<{ scope: string[]; days: number }>(env, async ({ settings, output, options }, name) => {
        const { api, orgId } = await asMember(settings);
        const { scope: scopes, days } = options;
        const answer = await api.client(TokenService).createToken({ orgId, name: name, scopes, days });
        output.answer(jsonOf(CreateTokenResponseSchema, answer), answer.secret);
      }),
    );
  token
    .command('list')
    .description('your tokens')
    .action(
      action(env, async ({ settings, output }) => {
        const { api, orgId } = await asMember(settings);
        const tokens = await allPages(
          (pageToken) => api.client(TokenService).listTokens({ orgId, pageToken }),
          (page) => page.tokens,
        );
        const rows = tokens.map((one) => [
          one.tokenId,
          one.name,
          one.prefix,
          one.revoked ? 'revoked' : timestampDate(one.expireTime!).toISOString().slice(0, 10),
        ]);
        output.answer(
          tokens.map((one) => jsonOf(TokenSchema, one)),
          table(['token', 'name', 'prefix', 'ends'], rows),
        );
      }),
    );
  token
    .command('revoke <token>')
    .description('end a token')
    .action(
      action(env, async ({ settings, output }, tokenId) => {
        const { api, orgId } = await asMember(settings);
        await api.client(TokenService).revokeToken({ orgId, tokenId: tokenId });
        output.answer({ ok: true }, 'revoked');
      }),
    );
  token
    .command('access')
    .description("the session's access token, good for some minutes: for curl and buf curl")
    .option('--platform', "the platform administrator's")
    .action(
      action<{ platform?: boolean }>(env, async ({ settings, output, options }) => {
        const signed = await (options.platform ? asPlatform(settings) : asMember(settings));
        const accessToken = await signed.bearer();
        output.answer({ access_token: accessToken, org_id: signed.orgId }, accessToken);
      }),
    );
}
