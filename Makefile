# `make` prints the targets. Needed: Go, GNU make, and root for what traces; the
# tests install their Debian or Ubuntu packages themselves (`make deps`).

GO := $(or $(shell command -v go),$(wildcard /usr/local/go/bin/go),go)
SUDO := $(if $(filter 0,$(shell id -u)),,sudo -E)
VERSION := $(or $(shell git describe --tags --always --dirty 2>/dev/null),unknown)

# KERNEL: a series (6.12), a comma list of them, newest, or a path to a vmlinuz.
KERNEL ?= 5.10,6.1,6.12,newest
RUN ?= .
ARGS ?=
DURATION ?= 10m
GOTESTFLAGS ?=
VMTESTFLAGS ?=

# Of bench: pairs of runs with and without a tracer, seconds of each, and which tools.
PAIRS ?= 7
SPELL ?= 2
TOOLS ?= .

# The packages whose tests need kernels with every hook, or a machine to themselves.
VM_PACKAGES := ./vmtest/internal/smoke ./internal/testnet ./internal/sysctl ./internal/tracer ./e2e
# What depends on no kernel, and `make test-e2e` has.
VM_NEVER := Signals|StdoutClosed|CommandStatus|Duration|Count|UsageErrors|Screen|AdviceRecorded|MaxConnections|Comparer.*|ParseLine.*|UnseenExcusesNoMore|WatchGrowthBegins
# The modes that are made of the trace: `make vmtest-all` has them.
VM_MODES := Watch.*|FailOn|Loss|Summary|Advice.*|Hidepid|Cgroup1|CommandTraced

export GO SUDO

.DEFAULT_GOAL := help
.PHONY: help build run demo test test-unit test-e2e soak vmtest vmtest-all bench bench-go generate check-generate lint deps clean

help: ## print this list
	@echo 'usage: make TARGET [VARIABLE=value]'
	@echo
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build ./tcptrace (needs Go only)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o tcptrace ./cmd/tcptrace

run: build ## build and trace this machine: make run ARGS='-4 --port 443'
	$(SUDO) ./tcptrace $(ARGS)

demo: build ## show a leaking server being named, in a namespace of its own
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/demo ./demo
	$(SUDO) bin/demo ./tcptrace $(ARGS)

test: ## everything: packages, lint, generated files, -race, this kernel, VM kernels
	@scripts/test.sh

# The race detector's pause of a second at each exit would be most of the time.
test-unit: ## the packages' tests under the race detector
	GORACE=atexit_sleep_ms=0 CGO_ENABLED=1 $(GO) test -race $(if $(SUDO),-exec '$(SUDO)') $(GOTESTFLAGS) $$($(GO) list ./... | grep -vE '/(e2e|vmtest/internal/smoke)$$')

test-e2e: build ## the built binary against the workload's truth, on this kernel
	TCPTRACE_BIN='$(CURDIR)/tcptrace' CGO_ENABLED=0 $(GO) test -count=1 -timeout 10m $(if $(SUDO),-exec '$(SUDO)') -run '$(RUN)' $(GOTESTFLAGS) ./e2e

soak: build ## minutes of churn, after which nothing may have grown: make soak DURATION=10m
	TCPTRACE_BIN='$(CURDIR)/tcptrace' TCPTRACE_SOAK='$(DURATION)' CGO_ENABLED=0 $(GO) test -tags soak -count=1 -timeout 0 -v $(if $(SUDO),-exec '$(SUDO)') -run '^TestSoak$$' ./e2e

# 2G: the end-to-end test holds 20,000 sockets under three tracers at once.
# Processors of a guest; 0: two where the emulator can (vmtest/internal/machine). An
# emulated one with two is a third slower: only the whole has it.
CPUS ?= $(if $(filter .,$(RUN)),1,0)
vmtest-all: VM_MODES := none
vmtest-all: CPUS := 0
vmtest vmtest-all:
	$(GO) tool vmtest matrix -cpus $(CPUS) -kernels '$(KERNEL)' -run '$(RUN)' $(if $(filter .,$(RUN)),-skip '^Test($(VM_NEVER)|$(VM_MODES))$$') $(VMTESTFLAGS) -memory 2G -extra ./cmd/tcptrace $(VM_PACKAGES)

vmtest: ## the kernel tests in VM kernels: make vmtest KERNEL=6.12 RUN=TestName
vmtest-all: ## these, and what is made of the trace: --watch, --summary, --fail-on, after a loss

bench: build ## cost beside the peers: make bench RUN=first-answer PAIRS=7 (docs/performance.md)
	@scripts/bench-deps.sh
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/bench ./bench
	$(SUDO) bin/bench -run '$(RUN)' -tools '$(TOOLS)' -pairs $(PAIRS) -seconds $(SPELL) ./tcptrace

bench-go: ## the Go benchmarks, for benchstat
	$(GO) test -run '^$$' -bench '$(RUN)' -benchmem $(GOTESTFLAGS) ./internal/events ./internal/aggregate ./internal/render ./internal/watch ./internal/tracer

generate: ## compile bpf/*.c into the committed objects (clang-19)
	$(GO) generate ./bpf

check-generate: ## fail where the committed objects differ from their sources
	@scripts/check-generate.sh || [ $$? -eq 77 ]

lint: ## gofmt, vet, staticcheck, shellcheck, licence lines
	@scripts/lint.sh

deps: ## install the Debian packages that the tests need
	@scripts/deps.sh

clean: ## remove what was built here
	rm -rf tcptrace bin dist
