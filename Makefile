# Everything a contributor runs. `make` alone lists the targets.
SHELL    := /bin/bash
GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X main.version=$(VERSION) -X main.revision=$(REVISION)
LINT     := bin/golangci-lint-v2.15.0
# The race detector needs a C compiler; without one the tests run all the same.
RACE     := $(shell command -v $$($(GO) env CC) >/dev/null 2>&1 && echo -race)
TEST     := $(GO) test $(RACE) -shuffle=on -timeout 15m

.DEFAULT_GOAL := help
.PHONY: help build demo dev test e2e chaos bench generate fmt lint check up down

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/fermata
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/fermata ./cmd/fermata

demo: build ## start the service, run the five-step QC example, show the result
	@./bin/fermata demo

dev: build ## start the service for development, on its own Postgres
	@./bin/fermata dev

test: ## run all tests but the long ones, on their own Postgres
	$(TEST) $$($(GO) list ./... | grep -v /internal/chaos)

e2e: ## build the program and test it from outside
	$(TEST) -v ./internal/e2e/

chaos: ## kill and freeze nodes and Postgres under load (minutes)
	$(TEST) -timeout 40m ./internal/chaos/...

bench: build ## measure steps per second, gaps, WAL per step and the limit of this machine
	@./bin/fermata bench

generate: ## write the generated files anew
	$(GO) generate ./...

fmt: $(LINT) ## format every Go file
	$(LINT) fmt

lint: $(LINT) ## run the linters (the first time builds them: minutes)
	$(LINT) run

check: ## all that CI runs
	@.ci/run

up: ## start Postgres and fermata in containers
	docker compose up --build --detach --wait

down: ## stop the containers; the data stays
	docker compose down

$(LINT):
	GOBIN=$(CURDIR)/bin $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
	mv bin/golangci-lint $@
