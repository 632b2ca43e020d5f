export { failureOf } from './failure.ts';
export { openTenants } from './open-tenants.ts';
export type { TenantCallOptions, Tenants, TenantsOptions, TenantsStatus, TenantTx } from './tenants.ts';
export { listTables, type TenantTable } from './tenant-tables.ts';
export { tenantSchemaService } from './tenant-schema-service.ts';
export type { TenantSchemaOptions } from './tenant-schema-service.ts';
