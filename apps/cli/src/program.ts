import { Command } from 'commander';
import type { Env } from '@mad/process';
import { backupCommands } from './commands/backup.ts';
import { cacheCommands } from './commands/cache.ts';
import { databaseCommands } from './commands/database.ts';
import { demoCommand } from './commands/demo.ts';
import { exportCommands } from './commands/export.ts';
import { healthCommand } from './commands/health.ts';
import { jobCommands } from './commands/job.ts';
import { localCommands } from './commands/local.ts';
import { logCommand } from './commands/logs.ts';
import { userCommands } from './commands/user.ts';
import { moleculeCommands } from './commands/molecule.ts';
import { erasureCommands } from './commands/erasure.ts';
import { organizationCommands } from './commands/organization.ts';
import { operationCommands } from './commands/operation.ts';
import { pipelineCommands } from './commands/pipeline.ts';
import { retentionCommands } from './commands/retention.ts';
import { sessionCommands } from './commands/session.ts';
import { tokenCommands } from './commands/token.ts';

/** The whole command line: one line per family of commands. */
export function program(env: Env): Command {
  const mad = new Command('mad')
    .description('MAD: molecules, pipelines and screening jobs of organizations that share one installation.')
    .option('--url <url>', 'the gateway (MAD_URL); default: the local system')
    .option('--home <folder>', 'local data and sessions (MAD_HOME); default: .mad')
    .option('--org <slug>', 'the organization to act in (MAD_ORG); default: the one signed in to last')
    .option('--json', 'one JSON document on stdout; errors as JSON on stderr')
    .exitOverride()
    .addHelpText(
      'after',
      '\nExit codes: 0 done, 1 failed, 2 wrong usage or input, 3 not found, 4 not allowed, 5 refused, 6 unavailable.',
    );
  for (const add of [
    localCommands,
    logCommand,
    demoCommand,
    healthCommand,
    sessionCommands,
    tokenCommands,
    (root: Command, from: Env) => erasureCommands(organizationCommands(root, from), from),
    userCommands,
    moleculeCommands,
    pipelineCommands,
    jobCommands,
    exportCommands,
    cacheCommands,
    retentionCommands,
    databaseCommands,
    operationCommands,
    backupCommands,
  ]) {
    add(mad, env);
  }
  return mad;
}
