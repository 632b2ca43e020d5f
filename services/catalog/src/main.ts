import { runMain } from '@mad/process';
import { readCatalogConfig } from './config.ts';
import { startCatalog } from './start.ts';

await runMain('catalog', (deps) => startCatalog(readCatalogConfig(process.env), deps));
