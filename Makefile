# The targets a person types. Everything they need is installed by `make setup`, which every target that runs
# something calls first; it may run any number of times.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
FUZZ_S ?= 600
# Tests wait for machines and daemons a third of their time.
WORKERS ?= 3
# Or every run, and every daemon that a test starts, would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  \033[1mmake %-18s\033[0m %s\n", $$1, $$2}'

setup: ## Install packages, .venv, kernel, agent image and root file system (root installs missing packages)
	@packaging/bootstrap
	@$(BIN)/hearth setup

demo: setup ## Boot a microVM, run commands in it, show what each step took
	@$(BIN)/hearth demo

develop: ## Install what tests and checks need, too
	@packaging/bootstrap --development

test: develop ## Run all tests, real machines included
	@$(BIN)/hearth setup
	@$(BIN)/python -m tests.lab warm
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

integration-up: develop ## Start a lab with S3, PostgreSQL, Redis, LVM, libvirt and a provisioner; or mend it
	@$(BIN)/hearth setup
	@$(BIN)/python -m tests.lab up

integration-test: develop ## Run the acceptance tests (or TESTS="...") against it, or against what TEST_* or .env name
	@$(BIN)/hearth setup
	@$(BIN)/python -m tests.lab test $(TESTS)

integration-logs: develop ## Show what all of it has said
	@$(BIN)/python -m tests.lab logs

integration-clean: develop ## End it and remove what it made
	@$(BIN)/python -m tests.lab clean

check: develop ## Format, lint, types, layers, fast tests: before every commit
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile --benchmark-disable -m "not slow and not vm and not daemon"

wheel: develop ## Make a wheel in dist/
	@packaging/wheel

deb: develop ## Make a Debian package in dist/, for this host's release
	@packaging/deb/build

service: deb ## Install the package in a root of its own, run the service under systemd in a machine (3 min)
	@$(BIN)/hearth setup
	@HEARTH_TEST_PACKAGE=$$(ls -t $$PWD/dist/hearth_*.deb | head -n1) $(BIN)/python -m pytest -q tests/service

fuzz: develop ## Feed parser, decoder and router random input for FUZZ_S seconds (600)
	@FUZZ_S=$(FUZZ_S) $(BIN)/python -m pytest -q tests/fuzz

format: develop ## Format the sources and sort their imports
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

twins: develop ## Make the blocking half of the SDK of the asynchronous one
	@$(BIN)/python -m tests.sdk.twins
	@$(BIN)/python -m tests.sdk.examples

bench: develop ## Measure; rows, goals and percentiles
	@$(BIN)/hearth setup
	@$(BIN)/hearth bench

docs: develop ## Build the documentation as a site into build/site, strictly
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lock: develop ## Resolve dependencies anew into the lock files
	@packaging/lock

clean: ## Remove what building and testing left in this tree
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks .import_linter_cache build dist
	@find src tests -name __pycache__ -type d -exec rm -rf {} +

.PHONY: help setup demo develop test integration-up integration-test integration-logs integration-clean check wheel deb service fuzz format twins bench docs lock clean
