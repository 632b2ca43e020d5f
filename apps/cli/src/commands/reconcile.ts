import type { Command } from 'commander';
import type { Env } from '@mad/process';
import {
  DifferenceSchema,
  ReconcileService,
  type Difference,
  type InspectFleetResponse,
  type RepairFleetResponse,
} from '@mad/proto/provisioner';
import { action } from '../command.ts';
import { EXIT } from '../failure.ts';
import { jsonOf, table } from '../output.ts';
import { asPlatform } from '../session.ts';

/** db reconcile: what is really there, compared with what should be. */
export function reconcileCommand(db: Command, env: Env): void {
  db.command('reconcile')
    .description('compare rows with servers and object store; exit code 1 while they differ')
    .option('--max-databases <n>', 'refuse to drop more databases of organizations nobody knows', Number, 10)
    .option('--repair', 'remove what nobody knows and make again what can be')
    .action(
      action<{ repair?: true; maxDatabases: number }>(env, async ({ settings, output, options }) => {
        const { api } = await asPlatform(settings);
        const client = api.client(ReconcileService);
        const found: InspectFleetResponse | RepairFleetResponse = options.repair
          ? await client.repairFleet({ maxDatabases: options.maxDatabases })
          : await client.inspectFleet({});
        const repaired = 'repaired' in found ? found.repaired : [];
        const { differences, leftOff, unreachable, databases, roles, objects } = found;
        const same = differences.length === 0 && unreachable.length === 0;
        const lines = [
          ...(repaired.length === 0
            ? []
            : [
                table(
                  HEADINGS,
                  repaired.map((one) => row(one, 'repaired')),
                ),
                '',
              ]),
          ...(differences.length === 0
            ? []
            : [
                table(
                  HEADINGS,
                  differences.map((one) => row(one, one.whatToDo)),
                ),
              ]),
          ...(leftOff === 0 ? [] : [`… and ${leftOff} more`]),
          ...unreachable.map((name) => `${name} does not answer: nothing is known of it`),
          `${databases} databases, ${roles} roles and ${objects} objects looked at` +
            (same ? ': all as it should be' : ''),
        ];
        output.answer(
          {
            differences: differences.map((one) => jsonOf(DifferenceSchema, one)),
            repaired: repaired.map((one) => jsonOf(DifferenceSchema, one)),
            left_off: leftOff,
            unreachable,
            looked_at: { databases, roles, objects },
          },
          lines.join('\n'),
        );
        if (!same) process.exitCode = EXIT.failed;
      }),
    );
}

const HEADINGS = ['difference', 'server', 'name', 'what to do'];

const row = ({ kind, server, name }: Difference, what: string): string[] => [kind, server || 'objects', name, what];
