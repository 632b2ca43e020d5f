export * from './gen/mad/tenancy/v1/tenant_schema_service_pb.js';
