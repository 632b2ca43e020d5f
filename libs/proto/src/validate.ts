export * from './gen/buf/validate/validate_pb.js';
