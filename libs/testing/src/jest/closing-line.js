import { existsSync, readFileSync, writeFileSync, writeSync } from 'node:fs';

/**
 * Jest reporter: ends a run with one line that people and scripts can read, e.g. `120 passed, 0 failed, 2 skipped`. With
 * MAD_TEST_TALLY naming a file, runs one after another count together: each line is the sum so far, kept in that file.
 */
export default class ClosingLine {
  /**
   * @param {Set<unknown>} _contexts
   * @param {import('@jest/reporters').AggregatedResult} results
   */
  onRunComplete(_contexts, results) {
    const tally = process.env['MAD_TEST_TALLY'];
    const kept = tally && existsSync(tally) ? readFileSync(tally, 'utf8') : '';
    const before = kept === '' ? {} : JSON.parse(kept);
    const passed = (before.passed ?? 0) + results.numPassedTests;
    // A file that cannot even be loaded has no tests to count, and must not look like a good run.
    const failed = (before.failed ?? 0) + results.numFailedTests + results.numRuntimeErrorTestSuites;
    const skipped = (before.skipped ?? 0) + results.numPendingTests + results.numTodoTests;
    if (tally) writeFileSync(tally, JSON.stringify({ passed, failed, skipped }));
    // Jest's own summary comes after every reporter; the last word is had at the end of the process.
    process.once('exit', () => writeSync(1, `${passed} passed, ${failed} failed, ${skipped} skipped\n`));
  }
}
