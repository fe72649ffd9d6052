# `make` prints what there is. Every target installs what it needs when it may (root, or sudo without a
# password), and otherwise says which packages are missing: integration/setup.sh.

SHELL := /bin/sh
export PATH := $(PATH):$(HOME)/.cargo/bin

PREFIX ?= /usr/local
DESTDIR ?=

.PHONY: help build demo test lint docs escape fuzz integration soak powercut bench dist install clean-users

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the release binary (static where musl is at hand); prints its path
	@integration/setup.sh build
	@integration/build.sh

demo: ## what sandbox does, as a terminal session: an rpm tried, kept, compared
	@integration/setup.sh build test
	@integration/demo.sh

test: ## the test suite, in every id mode this user can have
	@integration/setup.sh build test
	@integration/test.sh

lint: ## formatting, clippy, scripts
	@integration/setup.sh build lint
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	@for script in .ci/run integration/*.sh integration/docker/*.sh integration/vm/*.sh integration/vm/guest/*.sh; do bash -n "$$script" || exit 1; done

docs: ## the documentation of the library
	@integration/setup.sh build
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps

escape: ## ways out that others have had, in every id mode; the list with its results (SANDBOX_ESCAPE_ROUNDS=100000: an evening)
	@integration/setup.sh build test
	@integration/escape.sh

fuzz: ## the readers of what others have written, fuzzed for an hour each (FUZZ_SECONDS=3600)
	@integration/setup.sh build
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-3600} integration/fuzz.sh

integration: ## the demo as user and as root, real package managers, other kernels and power cuts (network, minutes)
	@integration/setup.sh build test vm engine-vm dist engines
	@integration/integration.sh

soak: ## random kills for an hour (SOAK_KILLS=20000): the store loses nothing
	@integration/setup.sh build test
	@integration/soak.sh

powercut: ## 100 power cuts of a virtual machine, and every state of a disk that a cut may leave (an hour)
	@integration/setup.sh build vm dist
	@integration/vm/long.sh

bench: ## start, commit, output, compiles and packages against their peers, and a large store, as Markdown tables (an hour)
	@integration/setup.sh build test bench
	@integration/bench.sh

dist: ## one static binary with its licences: target/dist/*.tar.gz
	@integration/setup.sh build dist
	@integration/dist.sh

install: ## the binary, manual pages, completions and the profile for AppArmor to $(PREFIX) (DESTDIR is honoured)
	@integration/setup.sh build
	@integration/install.sh "$$(integration/build.sh)" "$(DESTDIR)$(PREFIX)"

clean-users: ## removes the test users that root's `make test` made
	@integration/users.sh drop
