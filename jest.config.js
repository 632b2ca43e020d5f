/** Every package's test folder, native ESM, TypeScript through swc. One embedded Postgres serves the whole run. */
export default {
  rootDir: import.meta.dirname,
  testEnvironment: 'node',
  testMatch: ['<rootDir>/{libs,services,apps}/*/test/**/*.test.ts'],
  extensionsToTreatAsEsm: ['.ts'],
  transform: {
    '^.+\\.ts$': [
      '@swc/jest',
      { jsc: { parser: { syntax: 'typescript' }, target: 'es2024' }, module: { type: 'es6' } },
    ],
  },
  globalSetup: '<rootDir>/libs/testing/src/jest/global-setup.ts',
  setupFilesAfterEnv: ['<rootDir>/libs/testing/src/jest/retry-in-ci.ts'],
  globalTeardown: '<rootDir>/libs/testing/src/jest/global-teardown.ts',
  reporters: ['default', '<rootDir>/libs/testing/src/jest/closing-line.js'],
  testTimeout: 60_000,
  maxWorkers: 2,
  // What a failed test leaves open is said, and does not hold CI until its limit.
  forceExit: process.env.CI === 'true',
};
