# What there is to run; `make help` lists it. Nothing here needs to be run before anything else.
#
# Everything is installed into .venv and tests/js/node_modules, and stamped in .venv/stamps-*, so
# that a second call redoes only what changed: pyproject.toml and constraints.txt (Python
# packages), shared/native (the engine), tests/js/package-lock.json (JavaScript packages),
# tests/samod (a client of the tests). The package is installed editable: a change of a .py file
# needs nothing at all.

PYTHON ?= python3
ARGS ?=
PYTEST_ARGS ?=

BIN := .venv/bin
# A virtual environment works only where it was made: in a copied or moved tree the stamps have
# another name, so it is made anew.
STAMPS := .venv/stamps-$(shell printf %s '$(CURDIR)' | cksum | cut -d ' ' -f 1)
NATIVE := $(shell find shared/native -name target -prune -o \
	\( -name '*.rs' -o -name '*.toml' -o -name Cargo.lock \) -print)
NATIVE_MANIFEST := --manifest-path shared/native/Cargo.toml
# maturin and plain cargo give PyO3's build scripts different environments: in one folder each
# would throw away what the other has built.
LINT_TARGET := shared/native/target/lint
SAMOD := $(wildcard tests/samod/src/*.rs) tests/samod/Cargo.toml tests/samod/Cargo.lock
SAMOD_MANIFEST := --manifest-path tests/samod/Cargo.toml
# Given always: it is where the tests look, whatever the environment says.
SAMOD_TARGET := tests/samod/target
# The samod server of `amsync bench`; built by the command itself, only looked at here.
BENCH_SAMOD_MANIFEST := --manifest-path shared/amsync/bench/servers/samod/Cargo.toml
PYTHON_PACKAGES := pyproject.toml constraints.txt
# These lie in the source tree, outside the stamps: without them the stamps say nothing.
NO_ENGINE := $(if $(wildcard shared/amsync/_automerge.*so),,missing)
NO_SAMOD := $(if $(wildcard $(SAMOD_TARGET)/debug/samod-driver),,missing)
NO_MODULES := $(if $(and $(wildcard tests/js/node_modules/.package-lock.json), \
	$(wildcard clients/js/node_modules)),,missing)
# Tests of the chart's templates belong to `make test` where their tools are there already.
NO_HELM := $(if $(wildcard .build/helm/schemas/deployment-apps-v1.json),,and not helm)

# maturin looks for an environment in these before it looks at .venv.
export VIRTUAL_ENV := $(CURDIR)/.venv
unexport CONDA_PREFIX
# Relative: pip splits it at spaces, and a folder may have one in its name.
export PIP_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_QUIET := 1
# A simulated network must tell the same story every time, and sets of texts have an order too.
export PYTHONHASHSEED := 0

MAKEFLAGS += --no-builtin-rules --no-print-directory
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help serve build test test-all compose-test helm-test helm-docs docs docs-serve configuration-docs lint format wheel lock clean missing node redis promtool chromium docker helm lint-tools lint-samod

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS='|' read -r name text; do printf '%-16s %s\n' "$$name" "$$text"; done

serve: build ## build, then run `amsync serve`; options in ARGS="--port 4000"
	@exec $(BIN)/amsync serve $(ARGS)

build: $(STAMPS)/package ## install amsync and its engine into .venv

test: node redis promtool lint $(STAMPS)/javascript ## lint and the test suite, some 7 minutes on two cores
	@$(BIN)/python -m pytest -n 2 -m "not slow and not docker and not kubernetes $(NO_HELM)" $(PYTEST_ARGS)

test-all: node redis promtool chromium lint lint-samod $(STAMPS)/javascript $(STAMPS)/fuzz $(STAMPS)/samod ## the same with all that takes longer
	@AMSYNC_TEST_ALL=1 $(BIN)/python -m pytest -n 2 -m "not docker and not kubernetes $(NO_HELM)" $(PYTEST_ARGS)

compose-test: docker node $(STAMPS)/dev $(STAMPS)/javascript ## the image and docker-compose.yml with real clients; needs Docker
	@$(BIN)/python -m pytest -m docker tests/compose $(PYTEST_ARGS)

helm-test: helm node $(STAMPS)/dev $(STAMPS)/javascript ## the chart: lint, templates, schemas; also in a Kubernetes: docs/kubernetes.md
	@$(BIN)/python -m pytest -m "helm $(if $(KUBECONFIG),or kubernetes)" tests/deploy $(if $(AMSYNC_CHART_IMAGE),tests/kubernetes) $(PYTEST_ARGS)

helm-docs: $(STAMPS)/dev ## write what the chart has from elsewhere: README, options, dashboard
	@$(BIN)/python tools/helm-docs.py

docs: configuration-docs ## build the documentation's site into .build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: configuration-docs ## show it on http://127.0.0.1:8000, rebuilt with each change
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --livereload --watch shared --watch gateway

configuration-docs: $(STAMPS)/dev ## write docs/configuration.md: the options of the commands
	@$(BIN)/python tools/configuration-docs.py

lint: lint-tools $(STAMPS)/dev ## ruff, mypy, stubtest, import-linter, rustfmt, clippy
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || \
		{ $(BIN)/ruff format --check . ; echo "run: make format" >&2; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/python -m mypy.stubtest --mypy-config-file pyproject.toml amsync._automerge
	@$(BIN)/lint-imports --no-logo
	@cargo fmt $(NATIVE_MANIFEST) --check
	@cargo clippy --quiet --locked $(NATIVE_MANIFEST) --target-dir $(LINT_TARGET) -- -D warnings

lint-samod: lint-tools
	@cargo fmt $(SAMOD_MANIFEST) --check
	@cargo clippy --quiet --locked $(SAMOD_MANIFEST) --target-dir $(SAMOD_TARGET) -- -D warnings
	@cargo fmt $(BENCH_SAMOD_MANIFEST) --check
	@cargo clippy --quiet --locked $(BENCH_SAMOD_MANIFEST) --target-dir $(SAMOD_TARGET) -- -D warnings

format: lint-tools $(STAMPS)/dev ## rewrite Python and Rust sources in the one style
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .
	@cargo fmt $(NATIVE_MANIFEST)
	@cargo fmt $(SAMOD_MANIFEST)
	@cargo fmt $(BENCH_SAMOD_MANIFEST)

wheel: $(STAMPS)/build-tool ## dist/: the wheel and the source distribution
	@tools/check-tools.sh compiler cargo
	@$(BIN)/maturin build --release --locked --quiet --out dist
	@$(BIN)/maturin sdist --out dist >/dev/null
	@ls dist

lock: node ## renew constraints.txt and package-lock.json: the newest versions allowed
	@tools/check-tools.sh python
	@tools/lock.sh

clean: ## remove all that was built or installed here; no data
	@rm -rf .venv .build dist shared/native/target $(SAMOD_TARGET)
	@rm -rf tests/js/node_modules clients/js/node_modules
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@rm -f shared/amsync/_automerge.*so
	@find gateway worker shared tests -name __pycache__ -prune -exec rm -rf {} +

node:
	@tools/check-tools.sh node

redis:
	@tools/get-redis.sh

promtool:
	@tools/get-promtool.sh

chromium:
	@tools/get-chromium.sh

helm:
	@tools/get-helm.sh

docker:
	@tools/check-tools.sh docker

lint-tools:
	@tools/check-tools.sh cargo rust-lint

$(STAMPS)/venv:
	@tools/check-tools.sh python compiler cargo
	@echo "making a virtual environment in .venv"
	@$(PYTHON) -m venv --clear .venv
	@mkdir -p $(STAMPS)
	@touch $@

$(STAMPS)/build-tool: $(STAMPS)/venv $(PYTHON_PACKAGES)
	@$(BIN)/pip install --quiet maturin
	@touch $@

$(STAMPS)/package: $(STAMPS)/build-tool $(PYTHON_PACKAGES) $(NATIVE) $(NO_ENGINE)
	@tools/check-tools.sh compiler cargo
	@echo "building the engine and installing amsync (minutes the first time, then seconds)"
	@$(BIN)/maturin develop --release --locked --quiet
	@touch $@

$(STAMPS)/dev: $(PYTHON_PACKAGES) | $(STAMPS)/package
	@echo "installing the development tools"
	@$(BIN)/maturin develop --release --locked --quiet --extras dev
	@touch $@

$(STAMPS)/fuzz: $(STAMPS)/dev $(PYTHON_PACKAGES)
	@echo "installing the fuzzers"
	@$(BIN)/maturin develop --release --locked --quiet --extras dev,fuzz,fuzz-api
	@touch $@

$(STAMPS)/javascript: tests/js/package.json tests/js/package-lock.json $(STAMPS)/venv $(NO_MODULES)
	@echo "installing the JavaScript packages of the tests"
	@cd tests/js && npm ci >/dev/null
	@# Where the client, which is no part of tests/js, looks for automerge-repo.
	@[ -e clients/js/node_modules ] || ln -sn ../../tests/js/node_modules clients/js/node_modules
	@touch $@

$(STAMPS)/samod: $(SAMOD) $(STAMPS)/venv $(NO_SAMOD)
	@tools/check-tools.sh compiler cargo
	@echo "building the samod client of the tests (minutes the first time, then seconds)"
	@cargo build --quiet --locked $(SAMOD_MANIFEST) --target-dir $(SAMOD_TARGET)
	@touch $@
