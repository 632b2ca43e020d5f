#!/bin/sh
# What `make test` and CI run: generated code, lint, types, then every test. Arguments go to Jest.
set -eu
cd "$(dirname "$0")/.."
export PATH="$PWD/node_modules/.bin:$PATH" NX_DAEMON=false NX_NO_CLOUD=true
# In CI nothing is taken from a cache; elsewhere Nx repeats what it has already seen.
if [ "${CI:-}" = true ]; then skip=--skipNxCache; else skip=; fi
nx run mad:generate $skip
nx run-many -t lint typecheck $skip
NODE_OPTIONS="--experimental-vm-modules --disable-warning=ExperimentalWarning" exec node node_modules/jest/bin/jest.js "$@"
