export { readResultsConfig, type ResultsConfig } from './config.ts';
export { resultsEntities, resultsMigrations } from './db/schema.ts';
export { startResults, type RunningResults } from './start.ts';
