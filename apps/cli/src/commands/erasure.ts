import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Command } from 'commander';
import { timestampDate } from '@bufbuild/protobuf/wkt';
import { MINUTE_MS, sleep, uuidv7, type Env } from '@mad/process';
import { OrganizationService, OrganizationStatus } from '@mad/proto/identity';
import { ErasureSchema, ErasureService, OperationService, OperationState, type Erasure } from '@mad/proto/provisioner';
import type { Api } from '../api.ts';
import { action } from '../command.ts';
import { CommandFailure, EXIT } from '../failure.ts';
import { jsonOf, table } from '../output.ts';
import { allPages } from '../pages.ts';
import { asPlatform } from '../session.ts';
import { watchOperation } from '../watch-operation.ts';
import { organizationBySlug } from './organization.ts';

/** The provisioner hears of it within a second; it begins when the databases are idle. */
const BEGIN_MS = 2 * MINUTE_MS;
const POLL_MS = 200;

/** org erase, erasures, erasure verify. */
export function erasureCommands(org: Command, env: Env): void {
  org
    .command('erase <slug>')
    .description('erase an organization: databases, objects, rows, backups and keys; nothing of it can be had again')
    .option('--yes', 'do not ask for the slug once more')
    .option('--reason <text>', 'why, for the audit log', '')
    .option('--no-wait', 'do not wait for its end')
    .action(
      action<{ yes?: true; reason: string; wait: boolean }>(env, async ({ settings, output, options }, slug) => {
        const { api, ...signed } = await asPlatform(settings);
        const { orgId, status } = await organizationBySlug({ api, ...signed }, slug);
        if (!options.yes && !(await isTypedAgain(slug))) {
          throw new CommandFailure('not confirmed; nothing was erased', EXIT.refused);
        }
        // Whoever stopped watching watches on: it was asked for already.
        if (status !== OrganizationStatus.ERASING) {
          const request = { orgId, requestId: uuidv7(), slug, reason: options.reason };
          await api.client(OrganizationService).eraseOrganization(request);
        }
        if (!options.wait) {
          output.answer({ org_id: orgId }, `${slug} is being erased: mad operation list --org-id ${orgId}`);
          return;
        }
        const last = await watchOperation(api, output, await operationOf(api, orgId));
        if (last.state !== OperationState.SUCCEEDED) {
          throw new CommandFailure(`the erasure was given up; ${slug} is suspended`, EXIT.failed);
        }
        const { erasure } = await api.client(ErasureService).getErasure({ erasureId: orgId });
        output.answer(jsonOf(ErasureSchema, erasure), `${slug} is erased\n${details(erasure!)}`);
      }),
    );
  org
    .command('erasures')
    .description('organizations that were erased, newest first')
    .action(
      action(env, async ({ settings, output }) => {
        const { api } = await asPlatform(settings);
        const found = await allPages(
          (pageToken) => api.client(ErasureService).listErasures({ pageToken }),
          (page) => page.erasures,
        );
        output.answer(
          found.map((one) => jsonOf(ErasureSchema, one)),
          table(['erasure', 'organization', 'slug', 'erased', 'databases', 'objects', 'rows'], found.map(row)),
        );
      }),
    );
  org
    .command('erasure')
    .description("the signed record of an organization's erasure")
    .command('verify <erasure>')
    .description('check hash and signature of a record (by its id or the organization’s), and that nothing came back')
    .action(
      action(env, async ({ settings, output }, erasureId) => {
        const { api } = await asPlatform(settings);
        const { valid, erasure, problems } = await api.client(ErasureService).verifyErasure({ erasureId });
        const answer = { valid, problems, erasure: jsonOf(ErasureSchema, erasure) };
        output.answer(answer, [...(valid ? ['the record holds'] : problems), details(erasure!)].join('\n'));
        if (!valid) process.exitCode = EXIT.failed;
      }),
    );
}

/** Asks on the terminal; whoever is no person says --yes. */
async function isTypedAgain(slug: string): Promise<boolean> {
  if (!process.stdin.isTTY) return false;
  const prompt = createInterface({ input: process.stdin, output: process.stderr });
  prompt.setPrompt(`Nothing of ${slug} can be had again. Type its slug to erase it: `);
  prompt.prompt();
  const [answer] = (await once(prompt, 'line')) as [string];
  prompt.close();
  return answer.trim() === slug;
}

/** The operation that carries the erasure out, as soon as it has begun. One that was given up before is another. */
async function operationOf(api: Api, orgId: string): Promise<string> {
  for (const end = Date.now() + BEGIN_MS; Date.now() < end; await sleep(POLL_MS)) {
    const { operations } = await api.client(OperationService).listOperations({ orgId, kind: 'erase', pageSize: 10 });
    const mine = operations.find(({ state }) => state !== OperationState.CANCELLED);
    if (mine !== undefined) return mine.operationId;
  }
  const message = `it has not begun yet, its databases are busy; it will: mad operation list --org-id ${orgId}`;
  throw new CommandFailure(message, EXIT.unavailable);
}

interface Counted {
  slug: string;
  databases: string[];
  roles: string[];
  objects: number;
  backups: number;
  keys: number;
  rows: Record<string, Record<string, number>>;
}

const countedIn = ({ record }: Erasure): Counted => record as unknown as Counted;
const sum = (rows: Record<string, number>): number => Object.values(rows).reduce((total, n) => total + n, 0);

function details(erasure: Erasure): string {
  const { databases, roles, objects, backups, keys, rows } = countedIn(erasure);
  const owners = Object.entries(rows).map(([owner, tables]) => `${sum(tables)} rows of ${owner}`);
  return [
    `erasure ${erasure.erasureId} of ${erasure.orgId}, ${timestampDate(erasure.eraseTime!).toISOString()}`,
    `databases ${databases.join(', ') || 'none'}; ${roles.length} logins, ${objects} objects, ${backups} backups, ` +
      `${keys} data keys, ${owners.join(', ')}`,
    `sha256 ${erasure.hash}, signed by ${erasure.keyId}`,
  ].join('\n');
}

function row(erasure: Erasure): (string | number)[] {
  const { slug, databases, objects, rows } = countedIn(erasure);
  const total = Object.values(rows).reduce((all, tables) => all + sum(tables), 0);
  const when = timestampDate(erasure.eraseTime!).toISOString();
  return [erasure.erasureId, erasure.orgId, slug, when, databases.length, objects, total];
}
