# Two commands do all the set-up: `make demo` and `make test`.  `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
SECONDS ?= 60
MINUTES ?= 10

BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
# The package is installed editable, with its extension modules built in place; a missing or failed
# compile is an error.
INSTALL := CYMEMCACHE_BUILD_EXT=1 $(PIP) install --no-build-isolation --editable
SOURCES := $(wildcard cext/*.pyx cext/*/*/*.pxd) setup.py pyproject.toml

# Tests that run both twins by themselves, or build wheels of their own: one run is enough for them.
RUN_ONCE := $(wildcard $(addprefix tests/,test_packaging.py test_parser.py test_requests.py test_reply_bounds.py \
	test_rendezvous.py test_ketama.py test_fuzzing.py test_security.py \
	test_benchmark_report.py integration/test_benchmarks.py test_contract.py typing))
EACH := $(addprefix --ignore=,$(RUN_ONCE))
TEST_C = CYMEMCACHE_IMPL=c $(PY) -m pytest $(ARGS)
TEST_PYTHON = CYMEMCACHE_IMPL=python $(PY) -m pytest $(EACH) $(ARGS)
# They need development tools, and show nothing about memory; or they measure memory, which the address
# sanitizer keeps for a while.  Nor can greenlets, which change stacks, run under it.
NOT_SANITIZED := test_packaging.py typing integration/test_benchmarks.py integration/test_demo.py \
	integration/test_memory.py integration/test_libmemcached.py integration/test_greenlets.py
# They look into /proc, or need what only Debian has.
ONLY_LINUX := $(addprefix --ignore=tests/integration/,test_cluster_round_trips.py \
	test_embedded_resources.py test_forks.py test_libmemcached.py test_memory.py test_soak.py \
	test_twemproxy.py)
FUZZ_TARGETS ?= parser parser_compiled large requests rendezvous
FUZZ_SECONDS = $(shell echo $$(($(SECONDS) / $(words $(FUZZ_TARGETS)))))
# What the benchmarks compare with, each on its own: see benchmarks/clients.
PEERS := pymemcache==4.0.0 'pylibmc>=1.6' 'python-memcached>=1.62' \
	'python-binary-memcached>=0.31' 'meta-memcache>=4' 'meta-memcache-socket>=0.3'
# Looked for under pyenv's versions first, then on PATH.
PYENV := $(subst $() ,,$(addsuffix :,$(wildcard $(HOME)/.pyenv/versions/*/bin)))
INTERPRETERS ?= python3.11 python3.12 python3.13 python3.14 python3.15

export PYTHON
export PATH := $(PATH):/usr/sbin:/usr/local/sbin

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test test-both test-c test-python test-portable test-integrations test-pythons \
	test-sanitize test-memory chaos soak fuzz lint format install bench bench-smoke bench-guard \
	wheels clean memcached

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-17s %s\n", $$1, $$2 }' Makefile
	@echo "Variables: PYTHON=$(PYTHON) VENV=$(VENV) ARGS (for demo, bench and the test targets)"

demo: $(VENV)/.demo ## Build, install and show the package at work (ARGS="--server HOST:PORT")
	$(PY) -m cymemcache demo $(ARGS)

test: memcached lint test-both test-integrations ## Formatting, lint, types, all tests on both cores

# At the same time, since they mostly wait.  Ctrl-C reaches all: tests/conftest.py sees to it that
# those in the background do not ignore it.
test-both: $(VENV)/.dev
	@echo "Meanwhile the pure core is tested, and what one run is enough for: $(VENV)/test-*.log"
	@$(TEST_PYTHON) > $(VENV)/test-python.log 2>&1 & pure=$$!; \
	$(TEST_C) $(RUN_ONCE) > $(VENV)/test-once.log 2>&1 & once=$$!; failed=0; \
	$(TEST_C) $(EACH) || failed=1; \
	wait $$once || failed=1; \
	wait $$pure || failed=1; \
	cat $(VENV)/test-once.log $(VENV)/test-python.log; exit $$failed

test-c: $(VENV)/.dev ## All tests on the compiled core
	$(TEST_C)

test-python: $(VENV)/.dev ## The tests that depend on the implementation, on the pure core
	$(TEST_PYTHON)

test-portable: $(VENV)/.dev ## The integration tests that need no Linux, on both implementations
	CYMEMCACHE_IMPL=c $(PY) -m pytest tests/integration $(ONLY_LINUX) $(ARGS)
	CYMEMCACHE_IMPL=python $(PY) -m pytest tests/integration $(ONLY_LINUX) $(ARGS)

# In an environment of their own: some of these packages change whatever runs beside them.
test-integrations: $(VENV)/.dev $(VENV)-integrations/.packages ## The packages that people run on pymemcache, on this one
	CYMEMCACHE_IMPL=c PYTHONPATH=src $(VENV)-integrations/bin/python -m pytest -p no:ddtrace \
	    tests/integrations $(ARGS)
	CYMEMCACHE_IMPL=python PYTHONPATH=src $(VENV)-integrations/bin/python -m pytest -p no:ddtrace \
	    tests/integrations/test_django.py tests/integrations/test_tracers.py $(ARGS)

test-pythons: memcached ## All tests on each CPython found, in .venv-3.xx
	@set -e; for name in $(INTERPRETERS); do \
	    if python=$$(PATH="$(PYENV)$$PATH" command -v $$name) && $$python -c '' 2>/dev/null; then \
	        echo "== $$python"; \
	        $(MAKE) PYTHON=$$python VENV=.venv-$${name#python} test-c test-python; \
	    else \
	        echo "== $$name: not found"; \
	    fi; \
	done

test-sanitize: memcached ## The compiled core's tests under gcc's address and undefined-behaviour sanitizers
	@$(MAKE) --no-print-directory VENV=.venv-sanitize .venv-sanitize/.base
	@CYMEMCACHE_BUILD_EXT=1 CYMEMCACHE_SANITIZE=address,undefined .venv-sanitize/bin/python -m pip \
	    --disable-pip-version-check --quiet install --no-build-isolation '.[test]'
	LD_PRELOAD=$$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 \
	    UBSAN_OPTIONS=halt_on_error=1 CYMEMCACHE_IMPL=c \
	    .venv-sanitize/bin/python -m pytest $(addprefix --ignore=tests/,$(NOT_SANITIZED)) \
	    -k "not gevent and not greenlets" $(ARGS)

chaos: memcached $(VENV)/.dev ## Random commands through a faulty network, interrupted (SECONDS=60)
	PYTHONPATH=tests $(PY) -m faults $(SECONDS)

soak: memcached $(VENV)/.dev ## 64 threads on 5 nodes that are killed, stopped, restarted (MINUTES=10)
	PYTHONPATH=tests $(PY) -m faults.soak --minutes $(MINUTES) $(ARGS)

test-memory: memcached $(VENV)/.dev ## No growth over two million commands, on both implementations
	CYMEMCACHE_IMPL=c PYTHONPATH=tests $(PY) -m faults.memory $(ARGS)
	CYMEMCACHE_IMPL=python PYTHONPATH=tests $(PY) -m faults.memory $(ARGS)

fuzz: ## Parsers, encoders and hash under atheris and clang's address sanitizer (SECONDS=60)
	@.ci/need clang
	@$(MAKE) --no-print-directory VENV=.venv-fuzz .venv-fuzz/.base
	@CC=clang LDSHARED="clang -shared" CYMEMCACHE_BUILD_EXT=1 \
	    CYMEMCACHE_SANITIZE=address,fuzzer-no-link .venv-fuzz/bin/python -m pip \
	    --disable-pip-version-check --quiet install --no-build-isolation '.[fuzz]'
	@set -e; runtime=$$(.venv-fuzz/bin/python -c 'import atheris; print(atheris.path())'); \
	for target in $(FUZZ_TARGETS); do \
	    echo "== $$target"; mkdir -p build/fuzz/$$target; \
	    LD_PRELOAD=$$runtime/asan_with_fuzzer.so ASAN_OPTIONS=detect_leaks=0 PYTHONPATH=tests \
	        .venv-fuzz/bin/python -m fuzzing $$target -max_total_time=$(FUZZ_SECONDS) \
	        -max_len=400 -print_final_stats=1 -verbosity=0 -artifact_prefix=build/fuzz/ $(ARGS) \
	        build/fuzz/$$target tests/fuzzing/corpus/$${target%_compiled}; \
	done

lint: $(VENV)/.dev ## Formatting, lint, types, workflows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	PATH="$(BIN):$$PATH" cython-lint cext
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/zizmor --offline --quiet .github

format: $(VENV)/.dev ## Rewrite the Python sources as ruff would have them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(VENV)/.dev ## The development environment in .venv, extension built in place

bench: ## Measure side by side with the peers, about 15 minutes (ARGS="--only get --rounds 5")
	@.ci/need memcached
	@$(MAKE) --no-print-directory VENV=.venv-bench .venv-bench/.bench
	.venv-bench/bin/python -m benchmarks $(ARGS)

bench-smoke: $(VENV)/.dev ## Each benchmark for a blink, with the peers that are installed
	$(PY) -m pytest tests/integration/test_benchmarks.py $(ARGS)

bench-guard: ## Instructions per command against those in the repository (ARGS=--rewrite)
	@.ci/need valgrind
	@$(MAKE) --no-print-directory VENV=.venv-guard .venv-guard/.guard
	.venv-guard/bin/python -m benchmarks.guard $(ARGS)

wheels: $(VENV)/.dev ## Source distribution, a wheel for this Python and the pure wheel, in dist/
	rm -rf dist
	CYMEMCACHE_BUILD_EXT=1 $(PY) -m build
	CYMEMCACHE_BUILD_EXT=0 $(PY) -m build
	if [ "$$(uname)" = Linux ]; then $(BIN)/auditwheel show dist/*linux*.whl; fi

clean: ## Remove everything that was made
	rm -rf .venv .venv-* build dist wheelhouse .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -rf src/*.egg-info src/cymemcache/core/*.so
	find . -name __pycache__ -prune -exec rm -rf {} +

# A memcached to test against, and libmemcached to compare with: without them, only CI fails at once.
memcached:
	@.ci/need memcached nutcracker libmemcached || [ "$$CI" != true ]

# Stamps, so that nothing is installed or built twice.

$(VENV)/.base: pyproject.toml
	@.ci/need python
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PY) -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	    > $(VENV)/build-requires.txt
	@$(PIP) install --requirement $(VENV)/build-requires.txt
	@touch $@

$(VENV)/.demo: $(VENV)/.base $(SOURCES)
	@echo "Building the extension, installing it with the demo's needs into $(VENV)"
	@$(INSTALL) '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.base $(SOURCES)
	@echo "Building the extension, installing it with the tools and the tests' needs into $(VENV)"
	@$(INSTALL) '.[demo,dev,test]'
	@touch $@ $(VENV)/.demo

$(VENV)-integrations/.packages: pyproject.toml
	@.ci/need python
	@echo "Installing the packages that tests/integrations runs into $(VENV)-integrations"
	@$(VENV)-integrations/bin/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)-integrations
	@$(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["integrations"], sep="\n")' \
	    > $(VENV)-integrations/requires.txt
	@$(VENV)-integrations/bin/python -m pip --disable-pip-version-check --quiet install \
	    --requirement $(VENV)-integrations/requires.txt
	@touch $@

# A peer that cannot be installed is one that the benchmarks report as missing.
$(VENV)/.bench: $(VENV)/.base $(SOURCES)
	@echo "Building the extension, installing it with the peers to measure into $(VENV)"
	@.ci/need libmemcached || true
	@$(INSTALL) '.[bench]'
	@$(PY) -m compileall -q src # as an installed package is: its import is measured
	@for peer in $(PEERS); do $(PIP) install "$$peer" || echo "going on without $$peer"; done
	@touch $@

$(VENV)/.guard: $(VENV)/.base $(SOURCES)
	@echo "Building the extension into $(VENV)"
	@$(INSTALL) .
	@touch $@
