import type { Command } from 'commander';
import type { Env } from '@mad/process';
import { timestampDate } from '@bufbuild/protobuf/wkt';
import { OperationSchema, OperationService, OperationState, type Operation } from '@mad/proto/provisioner';
import { action } from '../command.ts';
import { CommandFailure, EXIT } from '../failure.ts';
import { jsonOf, table } from '../output.ts';
import { allPages, pageSizeFor } from '../pages.ts';
import { asPlatform } from '../session.ts';
import { watchOperation } from '../watch-operation.ts';

/** operation list, get, watch, cancel: what is undertaken with the organizations' databases. */
export function operationCommands(mad: Command, env: Env): void {
  const operation = mad.command('operation').description("what is undertaken with the organizations' databases");
  operation
    .command('list')
    .description('operations, newest first')
    .option('--state <state>', 'running, succeeded, failed or cancelled')
    .option('--kind <kind>', 'e.g. provision or migrate', '')
    .option('--org-id <id>', "one organization's", '')
    .option('--limit <n>', 'at most this many', Number, 50)
    .action(
      action<{ state?: string; kind: string; orgId: string; limit: number }>(env, async (invocation) => {
        const { settings, output, options } = invocation;
        const { api } = await asPlatform(settings);
        const { kind, orgId, limit } = options;
        const request = { pageSize: pageSizeFor(limit), kind, orgId, state: stateOf(options.state) };
        const operations = await allPages(
          (pageToken) => api.client(OperationService).listOperations({ ...request, pageToken }),
          (page) => page.operations,
          limit,
        );
        output.answer(
          operations.map((one) => jsonOf(OperationSchema, one)),
          table(
            ['operation', 'kind', 'organization', 'state', 'step', 'done', 'began', 'by', 'error'],
            operations.map(row),
          ),
        );
      }),
    );
  operation
    .command('get <operation>')
    .description('one operation')
    .action(
      action(env, async ({ settings, output }, operationId) => {
        const { api } = await asPlatform(settings);
        const { operation: found } = await api.client(OperationService).getOperation({ operationId });
        output.answer(jsonOf(OperationSchema, found), summary(found!));
      }),
    );
  operation
    .command('watch <operation>')
    .description('show progress until it ends; exit code 1 when it failed or was cancelled')
    .action(
      action(env, async ({ settings, output }, operationId) => {
        const { api } = await asPlatform(settings);
        const last = await watchOperation(api, output, operationId);
        output.answer(jsonOf(OperationSchema, last), summary(last));
        if (last.state !== OperationState.SUCCEEDED) process.exitCode = EXIT.failed;
      }),
    );
  operation
    .command('cancel <operation>')
    .description('give it up before its next step; one that must be carried through is refused')
    .action(
      action(env, async ({ settings, output }, operationId) => {
        const { api } = await asPlatform(settings);
        const { operation: found } = await api.client(OperationService).cancelOperation({ operationId });
        output.answer(jsonOf(OperationSchema, found), summary(found!));
      }),
    );
}

function stateOf(name: string | undefined): OperationState {
  if (name === undefined) return OperationState.UNSPECIFIED;
  const state = OperationState[name.toUpperCase() as keyof typeof OperationState];
  if (state) return state;
  throw new CommandFailure(`--state: must be running, succeeded, failed or cancelled`, EXIT.usage);
}

const stateText = ({ state, cancelRequested }: Operation): string =>
  state === OperationState.RUNNING && cancelRequested ? 'cancelling' : OperationState[state].toLowerCase();

const actorText = ({ actorKind, userId }: Operation): string => (userId === '' ? actorKind : `${actorKind} ${userId}`);

const doneText = ({ progress }: Operation): string => `${progress!.done}/${progress!.total} ${progress!.unit}`;

function row(one: Operation): string[] {
  const began = timestampDate(one.createTime!).toISOString();
  return [
    one.operationId,
    one.kind,
    one.orgId,
    stateText(one),
    one.step,
    doneText(one),
    began,
    actorText(one),
    one.error,
  ];
}

function summary(one: Operation): string {
  const failure = one.error === '' ? '' : `: ${one.error}`;
  return `${one.operationId} ${one.kind} ${one.schema} of ${one.orgId}: ${stateText(one)} at ${one.step}, ${doneText(one)}${failure}`;
}
