# kingbus. `make help` lists what there is; `make check` is what CI runs.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS := -X main.version=$(VERSION)
# Real servers, the race detector and two cores: the slowest package takes minutes.
TIMEOUT ?= 15m
FUZZTIME ?= 10s
# Histories of the simulation of clusters, beside those that run with the race detector.
HISTORIES ?= 2000
ARGS    ?=

.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/kingbus
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/kingbus ./cmd/kingbus

.PHONY: docs
docs: ## docs/configuration.md, docs/metrics.md and openapi.json, as settings, metrics, routes and types are
	$(GO) run ./cmd/kingbus config docs > docs/configuration.md
	$(GO) test ./internal/admin -run '^(TestOpenAPI|TestMetricsPage)$$' -count=1 -update

.PHONY: test
test: ## all tests with the race detector, those with real MySQL servers included (fetched once, see CONTRIBUTING.md)
	$(GO) test -race -count=1 -timeout $(TIMEOUT) ./...
	@$(MAKE) --no-print-directory sim

.PHONY: sim
sim: ## histories of clusters in virtual time: crashes, cut links, members that come and go (HISTORIES=2000)
	$(GO) test -count=1 -timeout 24h -run TestSimulation ./internal/stream -histories $(HISTORIES)

.PHONY: check
check: lint test ## everything that CI demands

.PHONY: lint
lint: ## format, vet, staticcheck, tidy
	@files=$$(gofmt -l cmd internal); \
	if [ -n "$$files" ]; then echo "not formatted (run make fmt):"; echo "$$files"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) mod tidy -diff

.PHONY: fmt
fmt: ## format all code
	gofmt -w cmd internal

.PHONY: fuzz
fuzz: ## every fuzz target for a moment (FUZZTIME=10s)
	@set -e; for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5s $$pkg; \
		done; \
	done

.PHONY: demo
demo: build ## a source, three nodes and two replicas on this machine, shown live (ARGS=--seconds=20 compares in the end)
	$(GO) build -trimpath -o bin/kingbus-demo ./cmd/kingbus-demo
	@bin/kingbus-demo $(ARGS)

.PHONY: bench
bench: build ## throughput and latency against a real source (ARGS=...)
	$(GO) run ./cmd/kingbus-bench $(ARGS)

# Exact, so that a package is made the same way everywhere.
NFPM := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.0
# A version that dpkg can compare: 1.2.3 of a tag v1.2.3, else 0.0.0~DATE.COMMIT.
DEB_VERSION ?= $(shell git describe --tags --exact-match 2>/dev/null | sed -n 's/^v\([0-9]\)/\1/p')
ifeq ($(DEB_VERSION),)
DEB_VERSION := 0.0.0~$(shell git log -1 --format=%cd.%h --date=format:%Y%m%d%H%M)
endif

.PHONY: deb
deb: build ## bin/kingbus_VERSION_ARCH.deb
	bin/kingbus completion bash > bin/completion.bash
	VERSION=$(DEB_VERSION) ARCH=$(shell $(GO) env GOARCH) $(GO) run $(NFPM) package --config packaging/nfpm.yaml --packager deb --target bin/

.PHONY: deb-check
deb-check: ## make the package, and install, upgrade and remove it in a Debian of its own (root, debootstrap)
	packaging/check.sh

.PHONY: docs-check
docs-check: ## run docs/operations.md as it is written, on hosts of namespaces with real servers (root, debootstrap; ten minutes at most)
	packaging/operations.sh

.PHONY: clean
clean: ## remove what was built; fetched MySQL servers stay in the user's cache folder
	rm -rf bin
