# SPDX-License-Identifier: GPL-2.0-only
#
# nftvm is built and run through here; each target's line begins with '##'.

GO        ?= go
TREES     ?=
FLAVORS   ?=
TESTS     ?=
MUTANTS   ?=
OUT       ?= out/run
TEST_TREE ?= 7.3

empty :=
comma := ,
RUN_FLAGS = $(if $(TREES),--trees $(TREES)) $(if $(FLAVORS),--flavors $(FLAVORS)) $(if $(TESTS),--tests '$(TESTS)') --out $(OUT)

NFTVM = bin/nftvm
GOLANGCI_LINT_VERSION = v2.15.0

.PHONY: help deps run mutants test unit-test vm-test lint bench clean FORCE
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

$(NFTVM): FORCE
	@$(GO) build -trimpath -o $@ ./cmd/nftvm

deps: $(NFTVM) ## install what the machine lacks, and nothing else (Debian; elsewhere print the package names)
	@$(NFTVM) doctor --install

run: deps ## the matrix: fetch, patch, build, boot and test every tree (TREES=6.12,7.3 FLAVORS=plain TESTS='nft_offload/*' OUT=out/run)
	@$(NFTVM) run $(RUN_FLAGS)

mutants: deps ## break the series on purpose: every patch of selftests/mutants must be noticed (TREES=7.3 MUTANTS='hwft-*')
	@$(NFTVM) mutants $(if $(TREES),--trees $(TREES)) $(if $(MUTANTS),--mutants '$(MUTANTS)') --out $(if $(filter file,$(origin OUT)),out/mutants,$(OUT))

test: unit-test vm-test ## the harness's own tests, first without, then with real guests

unit-test: deps
	$(GO) vet ./...
	$(GO) test -race ./...

# The guests need a kernel; the pipeline itself provides it.
vm-test: deps
	@$(NFTVM) run --trees $(TEST_TREE) $(if $(FLAVORS),--flavors $(FLAVORS)) --build-only --env out/test-kernel.env
	. ./out/test-kernel.env && $(GO) test -count=1 -timeout 30m ./vmtest/... ./internal/matrix/...

lint: deps ## golangci-lint over the Go, shellcheck over the selftests
	test -z "$$(gofmt -l $$(git ls-files '*.go'))"
	$(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION) run ./...
	shellcheck -x -P selftests $$(git ls-files '*.sh')
	! expand selftests/*.sh | grep -E "^.{101}" # checkpatch has an opinion

bench: deps ## the figures that the project promises, measured here (ONLY=rules,packets; COLD=1: also two whole builds with nothing cached)
	@$(NFTVM) bench $(if $(COLD),--cold) $(if $(ONLY),--only '$(ONLY)') --out out/bench

clean: ## remove what was built here; the store stays (nftvm cache gc empties it)
	rm -rf bin out

FORCE:
