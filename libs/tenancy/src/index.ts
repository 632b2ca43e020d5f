export { openTenants } from './open-tenants.ts';
export type { TenantCallOptions, Tenants, TenantsOptions, TenantsStatus, TenantTx } from './tenants.ts';
export { tenantSchemaService } from './tenant-schema-service.ts';
export type { TenantSchemaOptions } from './tenant-schema-service.ts';
