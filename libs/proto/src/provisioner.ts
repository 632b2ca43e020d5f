export * from './gen/mad/provisioner/v1/backup_pb.js';
export * from './gen/mad/provisioner/v1/backup_service_pb.js';
export * from './gen/mad/provisioner/v1/operation_pb.js';
export * from './gen/mad/provisioner/v1/operation_service_pb.js';
export * from './gen/mad/provisioner/v1/route_service_pb.js';
export * from './gen/mad/provisioner/v1/server_service_pb.js';
export * from './gen/mad/provisioner/v1/tenant_pb.js';
export * from './gen/mad/provisioner/v1/tenant_service_pb.js';
