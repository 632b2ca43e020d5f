import { readFileSync } from 'node:fs';
import { fromBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema, type FileDescriptorSet } from '@bufbuild/protobuf/wkt';

/** Every contract with its comments, which the generated code does not have. Made by `npm run generate`. */
export function readDescriptorSet(): FileDescriptorSet {
  return fromBinary(FileDescriptorSetSchema, readFileSync(new URL('./gen/descriptors.binpb', import.meta.url)));
}
