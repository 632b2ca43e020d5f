# The verbs operators know; each is one line over the `mad` command line (apps/cli), which is where the work is.
SHELL := /bin/sh
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)
MAD := node apps/cli/src/main.ts
INSTALLED := node_modules/.mad-installed
GENERATED := libs/proto/src/gen/.mad-generated
CONTRACTS := $(shell find proto -name '*.proto' -not -path 'proto/third_party/*') proto/buf.gen.yaml proto/generate.sh

.PHONY: help install up down demo test bench chaos soak health health-continuous migrate migrate-results backup restore migration seed shell logs reset compose-secrets lint format

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

$(INSTALLED): package.json package-lock.json $(wildcard libs/*/package.json services/*/package.json apps/*/package.json)
	@npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(GENERATED): $(INSTALLED) $(CONTRACTS)
	@sh proto/generate.sh
	@touch $@

install: $(GENERATED) ## packages and generated code

up: install ## start the whole system on this machine
	@$(MAD) up

down: install ## stop it
	@$(MAD) down

demo: install ## the main job, end to end, on real molecules
	@$(MAD) demo

test: install ## lint, types and every test
	@sh scripts/test.sh

bench: install ## speed against floors; ONLY=name for one
	@node bench/main.ts $(ONLY)

chaos: install ## processes and servers killed again and again; ONLY=provisioner or results, KILLS=n, SEED=n
	@node chaos/main.ts $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED)) $(ONLY)

soak: install ## ten million results, half an hour of a thousand organizations; ONLY=name for one, MINUTES=n
	@node bench/main.ts $(if $(MINUTES),--minutes $(MINUTES)) $(or $(ONLY),rotation-load ten-million fleet-soak)

health: install ## one look at every part
	@$(MAD) health

health-continuous: install ## the same, again and again
	@$(MAD) health --watch

migrate: install ## bring the metadata database to the newest version
	@$(MAD) migrate

migrate-results: install ## bring every tenant's database to the newest version
	@$(MAD) migrate-results

backup: install ## back up every organization's database and the metadata, or one organization: make backup ORG=acme
	@$(MAD) backup create $(or $(ORG),--all)

restore: install ## put a backup in its database's place: make restore BACKUP=<id> (mad backup list)
	@$(MAD) backup restore --yes "$(BACKUP)"

migration: install ## scaffold a migration from entity differences: make migration NAME=add_x SERVICE=catalog
	@$(MAD) migration --service "$(or $(SERVICE),catalog)" "$(NAME)"

seed: install ## what every installation has: roles, task definitions, templates
	@$(MAD) seed

shell: install ## SQL against the metadata database; works without psql
	@$(MAD) shell

logs: install ## follow the services' logs
	@$(MAD) logs --follow

reset: install ## delete the local system's data
	@$(MAD) reset

compose-secrets: install ## one file per secret for docker compose (deploy/README.md)
	@node apps/local/src/main.ts secrets

lint: install ## lint alone
	@npm run --silent lint

format: install ## format the sources
	@npm run --silent format
