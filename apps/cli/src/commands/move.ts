import { Option, type Command } from 'commander';
import type { Env } from '@mad/process';
import { MoveMode, OperationSchema, OperationState, TenantService } from '@mad/proto/provisioner';
import { action } from '../command.ts';
import { CommandFailure, EXIT } from '../failure.ts';
import { orgIdOf } from '../organization-id.ts';
import { jsonOf } from '../output.ts';
import { asPlatform } from '../session.ts';
import { watchOperation } from '../watch-operation.ts';

interface MoveOptions {
  to: string;
  schema: string;
  online?: true;
  offline?: true;
  keepHours?: number;
}

/** What came of a move, as the operation says it. */
interface MoveResult {
  from?: string;
  rows?: number;
  pause_ms?: number;
  kept_database?: string;
  /** Why the old server could not be cleared. */
  left_behind?: string;
}

/** db move: an organization's database to another server. */
export function moveCommand(db: Command, env: Env): void {
  db.command('move <organization>')
    .description("move an organization's database (slug or id) to another server of its region")
    .requiredOption('--to <server>', 'the server to move to')
    .option('--schema <schema>', 'the tenant schema', 'results')
    .addOption(new Option('--online', 'while everybody works, shut out for a moment at the end').conflicts('offline'))
    .option('--offline', 'the usual: read and not written until it is copied')
    .option('--keep-hours <hours>', 'how long the database on the old server is kept, and nobody let in', Number)
    .action(
      action<MoveOptions>(env, async ({ settings, output, options }, organization) => {
        const { api } = await asPlatform(settings);
        const { to: server, schema, keepHours, online } = options;
        const orgId = await orgIdOf(api, organization);
        const mode = online ? MoveMode.ONLINE : MoveMode.OFFLINE;
        const { operation } = await api.client(TenantService).moveTenant({ orgId, schema, server, mode, keepHours });
        const last = await watchOperation(api, output, operation!.operationId);
        if (last.state !== OperationState.SUCCEEDED) {
          const end =
            last.state === OperationState.CANCELLED ? 'was cancelled' : `failed at ${last.step}: ${last.error}`;
          throw new CommandFailure(`move ${end}: the organization works where it did`, EXIT.failed);
        }
        const {
          from,
          rows,
          pause_ms: pause,
          kept_database: kept,
          left_behind: left,
        } = (last.result ?? {}) as MoveResult;
        const paused = online ? 'nobody let in' : 'nothing written';
        const there =
          left === undefined
            ? `${kept} is kept on ${from}`
            : `${from} could not be cleared (${left}): what is left there is removed when it answers`;
        const text = `${schema} moved from ${from} to ${server}: ${rows} rows, ${paused} for ${pause} ms; ${there}`;
        output.answer(jsonOf(OperationSchema, last), text);
      }),
    );
}
