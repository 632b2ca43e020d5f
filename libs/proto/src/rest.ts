export * from './gen/mad/rest/v1/cursor_pb.js';
