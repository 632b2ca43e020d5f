#!/bin/sh
# Generates TypeScript from the contracts. Third-party .proto files come from the npm packages that ship them, into an
# ignored folder; nothing generated is committed.
set -eu
cd "$(dirname "$0")"
modules=../node_modules
PATH="$(cd "$modules/.bin" && pwd):$PATH"
place() { mkdir -p "third_party/$(dirname "$2")"; cmp -s "$modules/$1" "third_party/$2" || cp "$modules/$1" "third_party/$2"; }
place protobufjs/google/api/annotations.proto google/api/annotations.proto
place protobufjs/google/api/http.proto google/api/http.proto
place grpc-health-check/proto/health/v1/health.proto grpc/health/v1/health.proto
place @grpc/reflection/build/proto/grpc/reflection/v1/reflection.proto grpc/reflection/v1/reflection.proto
place @grpc/reflection/build/proto/grpc/reflection/v1alpha/reflection.proto grpc/reflection/v1alpha/reflection.proto
buf generate --clean
# The same contracts with their comments, for the API's documentation.
buf build --as-file-descriptor-set --output ../libs/proto/src/gen/descriptors.binpb
