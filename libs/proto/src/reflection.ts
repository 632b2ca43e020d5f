export { ServerReflection as ServerReflectionV1 } from './gen/grpc/reflection/v1/reflection_pb.js';
export { ServerReflection as ServerReflectionV1Alpha } from './gen/grpc/reflection/v1alpha/reflection_pb.js';
export type { ServerReflectionRequest, ServerReflectionResponse } from './gen/grpc/reflection/v1/reflection_pb.js';
