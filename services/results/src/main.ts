import { runMain } from '@mad/process';
import { readResultsConfig } from './config.ts';
import { startResults } from './start.ts';

await runMain('results', (deps) => startResults(readResultsConfig(process.env), deps));
