import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { Env } from '@mad/process';
import { action } from '../command.ts';
import { runLocal } from '../local-system.ts';

/** db erd: the pages of docs/schema. */
export function schemaDocsCommand(db: Command, env: Env): void {
  db.command('erd')
    .description('write diagrams and tables of every schema into docs/schema, from databases migrated for this alone')
    .option('--check', 'write nothing; fail when a page is not as the migrations have it')
    .option('--out <folder>', 'another folder')
    .action(
      action<{ check?: boolean; out?: string }>(env, async ({ settings, options }) => {
        process.exitCode = await runLocal([
          'erd',
          ...(options.check ? ['--check'] : []),
          ...(options.out === undefined ? [] : ['--out', resolve(options.out)]),
          ...(settings.json ? ['--json'] : []),
        ]);
      }),
    );
}
