export * from './gen/mad/rest/v1/cursor_pb.js';
export * from './gen/mad/rest/v1/download_pb.js';
