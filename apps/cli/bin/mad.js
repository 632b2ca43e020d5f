#!/usr/bin/env node
// The command line runs from its TypeScript sources, which needs Node 24: where the shell's Node is older, the one that
// the project installed for itself takes over.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const main = fileURLToPath(new URL('../src/main.ts', import.meta.url));
const own = fileURLToPath(new URL('../../../node_modules/.bin/node', import.meta.url));
if (Number(process.versions.node.split('.')[0]) >= 24) await import(main);
else if (existsSync(own))
  process.exitCode = spawnSync(own, [main, ...process.argv.slice(2)], { stdio: 'inherit' }).status ?? 1;
else {
  process.stderr.write('mad needs Node 24 or newer; run `npm install` in the project first\n');
  process.exitCode = 1;
}
