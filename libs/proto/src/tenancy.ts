export * from './gen/mad/tenancy/v1/organization_erasure_service_pb.js';
export * from './gen/mad/tenancy/v1/tenant_schema_service_pb.js';
