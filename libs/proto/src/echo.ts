export * from './gen/mad/echo/v1/echo_service_pb.js';
