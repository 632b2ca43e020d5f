export * from './gen/mad/access/v1/access_pb.js';
