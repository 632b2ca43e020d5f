import { jest } from '@jest/globals';

// Servers are killed and clocks are waited for: in CI a test that failed is run twice more at most, and its errors are printed,
// so that a stall of the machine does not decide and a flaky test is still seen.
if (process.env.CI === 'true') jest.retryTimes(2, { logErrorsBeforeRetry: true });
