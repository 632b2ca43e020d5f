import { writeSync } from 'node:fs';

/** Jest reporter: ends a run with one line that people and scripts can read, e.g. `120 passed, 0 failed, 2 skipped`. */
export default class ClosingLine {
  /**
   * @param {Set<unknown>} _contexts
   * @param {import('@jest/reporters').AggregatedResult} results
   */
  onRunComplete(_contexts, results) {
    // A file that cannot even be loaded has no tests to count, and must not look like a good run.
    const failed = results.numFailedTests + results.numRuntimeErrorTestSuites;
    const skipped = results.numPendingTests + results.numTodoTests;
    // Jest's own summary comes after every reporter; the last word is had at the end of the process.
    process.once('exit', () =>
      writeSync(1, `${results.numPassedTests} passed, ${failed} failed, ${skipped} skipped\n`),
    );
  }
}
