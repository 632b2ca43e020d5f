import { EXIT, failWith } from './failure.ts';
import { program } from './program.ts';

// A reader that has seen enough (`mad logs | head`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(EXIT.ok);
});

await program(process.env)
  .parseAsync()
  .catch((error: unknown) => failWith(error, process.argv.includes('--json')));
