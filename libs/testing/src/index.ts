export { testCluster } from './cluster.ts';
export type { TestCluster } from './cluster.ts';
export { metadataDatabase } from './metadata-database.ts';
export type { MigratedSchema, TestDatabase } from './metadata-database.ts';
export { schemaSuite } from './schema-suite.ts';
export type { SchemaDatabase, SchemaSuiteOptions, SchemaUnderTest } from './schema-suite.ts';
export { testAccessKey, testJwks, testServiceKey, testServiceKeys, testServiceVerifier, testVerifier } from './keys.ts';
export { badTokens, bearer, platformToken, serviceToken, userToken } from './tokens.ts';
export type { BadToken, TokenClaims } from './tokens.ts';
