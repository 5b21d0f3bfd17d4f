# `make` shows the targets. Each sets up what it needs: a virtual environment, the extension, other loops, a fuzzer.
#
# One build at a time, whatever -j says: two compilers at once slow each other down, and all share target/.
.NOTPARALLEL:
.DELETE_ON_ERROR:
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

AREA =
LOOPS = tokioloop asyncio
TARGET = stream pipe interest turn datagram tls accept coalesce
SECONDS = 60
FILE = src/core/**/*.rs
# The areas that `make sanitize` runs; what `make miri` runs beside unit tests, and in how many cases of each property.
SANITIZED = callbacks tcp udp tls
DRIVEN = callbacks
CASES = 1
# Of benchmarks/rows.py (empty: all).
BENCH =
# The interpreter to use, a command. Empty: what .venv has, at first the newest of VERSIONS that is there.
PYTHON =
# `make test` runs on the others of these, too, where they are installed.
VERSIONS = 3.15 3.14 3.13 3.12 3.11
# Parts of `make test` that run at once (tests/ and the suite, on each interpreter): they wait more than they compute.
AT_ONCE = 4
# What `make test-testing` runs on, and where it makes its chroot, or finds it.
TESTING = 3.15 3.14
CHROOT = $(CARGO_TARGET_DIR)/testing-root
# The tests of the suite itself: once is enough, as is stock asyncio beside tokioloop.
META = spec/_meta
# What of tests/ runs; on other interpreters without that of tools which do not depend on them.
TESTS = tests
# Whose tests `make test-projects` runs (empty: all that it knows), and where checkouts of theirs are.
PROJECT =
CHECKOUTS = target/projects/checkouts
VENV = .venv
# The build for the main interpreter; another one's is beside it, or they would undo each other's.
CARGO_TARGET_DIR ?= target
export CARGO_TARGET_DIR

PY := $(VENV)/bin/python
CARGO := cargo --locked
MATURIN := VIRTUAL_ENV=$(abspath $(VENV)) $(PY) -m maturin
SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find src -name '*.rs')
.PHONY: help build release spec test test-core test-real test-testing test-projects lint fuzz mutants loom miri sanitize bench bench-full bench-counts peers clean prepare test-python test-meta test-spec nightly force

help: ## Show the targets
	@printf 'usage: make TARGET [NAME=VALUE ...]\n\n'
	@sed -nE 's/^([a-z-]+):.* ## (.*)$$/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS=$$'\t' read -r name text; do \
		printf '  %-13s  %s\n' "$$name" "$$text"; done
	@printf '\nPYTHON=COMMAND makes .venv from that interpreter (default: the first found of $(VERSIONS)).\n'

build: $(VENV)/.built-dev ## Build the extension for development, into .venv

release: $(VENV)/.built-release ## Build the optimised wheel, and install that build into .venv

spec: $(VENV)/.built-dev ## Run the conformance suite [AREA=tcp] [LOOPS="tokioloop asyncio uvloop ..."]
	@for loop in $(LOOPS); do \
		module=$${loop%%[:.]*}; \
		$(PY) -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$$module') is None)" || \
			$(PY) -m pip install --quiet "$$module"; \
	done
	$(PY) -m spec $(foreach area,$(AREA),--area $(area)) $(foreach loop,$(LOOPS),--loop $(loop))

test: $(VENV)/.tools ## Run everything: lint, test-core, tests/ and the suite on each Python of VERSIONS
	@main=$$($(PY) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	AT_ONCE=$(AT_ONCE) CHECKS="lint test-core" .ci/test-pythons $(VENV) main $$(printf '%s\n' $(VERSIONS) | grep -vxF "$$main" || true)
	@echo "== everything passed"

test-core: ## Test core and io, with the corpora of the fuzzers; needs no Python
	$(CARGO) test --no-default-features --features sim
	$(CARGO) test --no-default-features --features io,sim --lib
	@echo "== core and io: passed"

test-real: $(VENV)/.built-dev ## Test with real programs, PostgreSQL and Redis (which it starts, if installed)
	$(PY) -m pip install --quiet --group real
	$(PY) -m pytest tests/real
	@echo "== tests with real programs: passed"

test-testing: ## Run tests/ and the suite on CPython 3.14 and 3.15 in a chroot of Debian testing (root, debootstrap)
	AT_ONCE=$(AT_ONCE) LOOPS="$(LOOPS)" .ci/testing $(CHROOT) $(TESTING)
	@echo "== Debian testing: passed"

test-projects: $(VENV)/.built-dev ## Compare other projects' own tests on stock asyncio and on ours [PROJECT="psycopg"]
	$(PY) -m tests.projects $(foreach project,$(PROJECT),--project $(project)) --checkouts $(CHECKOUTS)

# The parts of `make test` for one interpreter. Others may run theirs at the same time.
prepare: $(VENV)/.built-dev
	$(PY) -m pip install --quiet --group real

test-python:
	$(PY) -m pytest $(TESTS)

test-meta:
	$(PY) -m pytest $(META)

test-spec:
	$(PY) -m spec --json $(VENV)/spec.json $(foreach loop,$(LOOPS),--loop $(loop))

# A folder of its own: without linking there is little to share with a build, and much to invalidate.
lint: export CARGO_TARGET_DIR := $(CARGO_TARGET_DIR)/lint
lint: $(VENV)/.tools ## Check formatting, lints and types, Rust and Python
	$(CARGO) fmt --check
	$(CARGO) clippy --quiet --no-default-features --features sim --all-targets -- -D warnings
	$(CARGO) clippy --quiet --no-default-features --features io,sim --lib --profile test -- -D warnings
	PYO3_PYTHON=$(abspath $(PY)) $(CARGO) clippy --quiet --lib -- -D warnings
	PYO3_PYTHON=$(abspath $(PY)) $(CARGO) clippy --quiet --lib --features failpoints -- -D warnings
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	@echo "== lint: passed"

nightly:
	@command -v rustup >/dev/null || { echo 'needs rustup (https://rustup.rs), for the nightly compiler' >&2; exit 1; }
	@rustup toolchain list | grep -q '^nightly' || rustup toolchain install nightly --profile minimal

# New inputs go to a folder that is not committed; one that finds a crash is moved to fuzz/corpus by hand.
fuzz: nightly ## Run the fuzzers [TARGET=stream] [SECONDS=60, for each]
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
	@unset CARGO_TARGET_DIR; for target in $(TARGET); do \
		mkdir -p fuzz/target/corpus/$$target; \
		cargo +nightly fuzz run $$target fuzz/target/corpus/$$target fuzz/corpus/$$target -- \
			-max_total_time=$(SECONDS) -print_final_stats=1; \
		echo "== fuzz $$target: $(SECONDS) s without a crash"; \
	done

# What a failure is made small for is for people to read.
mutants: export PROPTEST_MAX_SHRINK_ITERS = 0
mutants: ## Change core in a thousand places, one at a time, and see tests fail; for hours [FILE=src/core/ready.rs]
	@cargo mutants --version >/dev/null 2>&1 || cargo install --locked cargo-mutants
	cargo mutants $(foreach file,$(FILE),--file '$(file)') --output target

# std's atomics and locks are loom's there, so it is a build of its own.
loom: export CARGO_TARGET_DIR := $(CARGO_TARGET_DIR)/loom
loom: ## Try the park and wake-ups of a loop (src/io/wake.rs) in each order of its threads, with loom
	RUSTFLAGS='--cfg loom' $(CARGO) test --no-default-features --lib -- wake::model
	@echo "== loom: passed"

# Cases and files are few, as Miri takes some hundred times as long. Without isolation proptest and insta find their
# files.
miri: export CARGO_TARGET_DIR := $(CARGO_TARGET_DIR)/miri
miri: export PROPTEST_CASES = $(CASES)
miri: export INSTA_WORKSPACE_ROOT := $(CURDIR)
miri: export MIRIFLAGS = -Zmiri-disable-isolation
miri: nightly ## Run core and sim under Miri: unit tests, CASES=1 of each property of an area [DRIVEN="tcp corpus"]
	@cargo +nightly miri --version >/dev/null 2>&1 || rustup component add --toolchain nightly miri rust-src
	cargo +nightly --locked miri test --no-default-features --features sim --lib $(foreach test,$(DRIVEN),--test $(test))
	@echo "== miri: passed"

# AddressSanitizer sees what goes out of bounds or is used once freed, also in objects of Python's, as each is an
# allocation then. rustc has no UBSan: what is nearest are std's checks of what unsafe code promises (-Zub-checks), the
# compiler's of pointers, enums and arithmetic (debug assertions), and structs laid out anew, so that nothing relies on
# how they happen to be. CPython leaks by design. It is not instrumented itself, so the runtime is preloaded. That keeps
# what is freed for a while, so tests of how much memory is taken are left out. All is slow: what fails runs again,
# alone, but a report is a failure whichever run has it.
ASAN = $(abspath $(CARGO_TARGET_DIR))/sanitize/asan-runtime.so
REPORT = $(ASAN:.so=.report)
sanitize: export ASAN_OPTIONS = detect_leaks=0:abort_on_error=1:handle_abort=1:allow_addr2line=1:log_path=$(REPORT)
sanitize: export PYTHONMALLOC = malloc
sanitize: $(VENV)/.built-sanitized ## Run areas under AddressSanitizer and Rust's checks of UB [SANITIZED="tcp tls"]
	@rm -f $(REPORT).*
	@run() { \
		LD_PRELOAD=$(ASAN) $(PY) -m spec --loop tokioloop $(foreach area,$(SANITIZED),--area $(area)) "$$@" \
			--deselect spec/tls/test_memory.py; \
	}; \
	status=0; \
	run -- || run -n 1 -- --lf || status=1; \
	if cat $(REPORT).* 2>/dev/null; then status=1; fi; \
	exit $$status
	@echo "== sanitize: passed"

# What fails in a benchmark is in its report.
bench: $(VENV)/.built-release peers ## Compare with asyncio, uvloop, rloop and blazio, within 10 minutes [BENCH="raw stream"]
	-$(PY) benchmarks/benchmarks.py --minutes 6 $(BENCH)
	-$(PY) benchmarks/micro.py --minutes 2.7
	-$(PY) benchmarks/syscalls.py --quick

bench-full: $(VENV)/.built-release peers ## The same with every loop, size and number of connections, for hours
	-$(PY) benchmarks/benchmarks.py --full --rounds 5 $(BENCH)
	-$(PY) benchmarks/micro.py --full --rounds 7
	-$(PY) benchmarks/syscalls.py

bench-counts: $(VENV)/.built-release ## Count instructions of the hot paths, and compare with benchmarks/counts.json (valgrind)
	@$(PY) -m pip install --quiet trustme
	$(PY) benchmarks/counts.py

# A loop that does not install here is left out of the comparison.
peers: $(VENV)/.built-release
	@$(PY) -m pip install --quiet --group real
	@while read -r loop; do \
		$(PY) -m pip install --quiet "$$loop" || echo "== $$loop does not install: it is left out"; \
	done < benchmarks/peers.txt

clean: ## Remove everything that was built or installed
	rm -rf target fuzz/target fuzz/artifacts spec/_results .venv .venv-* tokioloop/_tokioloop.*.so
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The virtual environment. An interpreter asked for by PYTHON takes the place of another one.
$(VENV)/.python: force
	@identity='import sys; print(sys.version, sys.base_prefix)'; \
	has=$$($(PY) -c "$$identity" 2>/dev/null || true); \
	wanted=; \
	if [ -n '$(PYTHON)' ]; then \
		wanted=$$(.ci/find-python '$(PYTHON)') || \
			{ echo "PYTHON=$(PYTHON) is no CPython >= 3.11 with venv" >&2; exit 1; }; \
		[ "$$has" != "$$("$$wanted" -c "$$identity")" ] || wanted=; \
	elif [ -z "$$has" ]; then \
		wanted=$$(.ci/find-python --version $(VERSIONS) || .ci/find-python python3) || \
			{ echo "no CPython >= 3.11 with venv found; name one with PYTHON=" >&2; exit 1; }; \
	fi; \
	if [ -n "$$wanted" ]; then \
		echo "== $(VENV): $$wanted"; \
		rm -rf $(VENV); \
		"$$wanted" -m venv $(VENV); \
	fi; \
	if [ -n "$$wanted" ] || [ ! -e $@ ]; then touch $@; fi

# --group is pip's since 25.1.
$(VENV)/.tools: pyproject.toml $(VENV)/.python
	$(PY) -m pip install --quiet --upgrade 'pip>=25.1'
	$(PY) -m pip install --quiet --group dev
	@touch $@

# A development and a release build are in the same place: making one makes the other out of date.
$(VENV)/.built-dev: $(SOURCES) $(VENV)/.tools
	@rm -f $(VENV)/.built-*
	$(MATURIN) develop --features py,failpoints
	@touch $@

$(VENV)/.built-release: $(SOURCES) $(VENV)/.tools
	@rm -f $(VENV)/.built-*
	$(MATURIN) build --release --out $(CARGO_TARGET_DIR)/wheels
	$(MATURIN) develop --release
	@touch $@

# The runtime that the compiler brings is for programs: without the part that only those may have it makes a library.
# That is not to be called libasan.so: the runtime would take it for another one.
$(ASAN): | nightly
	@for tool in cc ar; do \
		command -v $$tool >/dev/null || { echo "make sanitize needs $$tool: apt install gcc binutils" >&2; exit 1; }; \
	done
	@mkdir -p $(@D)
	@cp "$$(rustc +nightly --print target-libdir)/librustc-nightly_rt.asan.a" $(@:.so=.a)
	@ar d $(@:.so=.a) asan_preinit.cpp.o
	cc -shared -o $@ -Wl,--whole-archive $(@:.so=.a) -Wl,--no-whole-archive -lpthread -ldl -lm -lrt

# With a target that is named, build scripts and macros, which run in the compiler, are not instrumented.
$(VENV)/.built-sanitized: $(SOURCES) $(VENV)/.tools $(ASAN)
	@rm -f $(VENV)/.built-*
	RUSTUP_TOOLCHAIN=nightly CARGO_TARGET_DIR=$(dir $(ASAN)) \
		RUSTFLAGS='-Zsanitizer=address -Zub-checks=yes -Zrandomize-layout -Cdebug-assertions=yes -Coverflow-checks=yes' \
		$(MATURIN) develop --features py,failpoints --target "$$(rustc -vV | sed -n 's/^host: //p')"
	@touch $@
