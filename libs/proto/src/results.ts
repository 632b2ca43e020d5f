export * from './gen/mad/results/v1/cache_service_pb.js';
export * from './gen/mad/results/v1/execution_service_pb.js';
export * from './gen/mad/results/v1/job_run_pb.js';
export * from './gen/mad/results/v1/job_run_service_pb.js';
export * from './gen/mad/results/v1/prewarm_service_pb.js';
export * from './gen/mad/results/v1/job_statistics_service_pb.js';
export * from './gen/mad/results/v1/result_batch_pb.js';
export * from './gen/mad/results/v1/retention_service_pb.js';
