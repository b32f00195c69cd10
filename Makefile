# The targets a person types. Everything they need is installed by `make setup`, which every target that runs
# something calls first; it may run any number of times.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
FUZZ_S ?= 600

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  \033[1mmake %-8s\033[0m %s\n", $$1, $$2}'

setup: ## Install packages, .venv, kernel, agent image and root file system (root installs missing packages)
	@packaging/bootstrap
	@$(BIN)/hearth setup

demo: setup ## Boot a microVM, run commands in it, show what each step took
	@$(BIN)/hearth demo

develop: ## Install what tests and checks need, too
	@packaging/bootstrap --development

test: develop ## Run all tests, real machines included
	@$(BIN)/hearth setup
	@$(BIN)/python -m pytest -n 2 --dist loadfile

check: develop ## Format, lint, types, layers, fast tests: before every commit
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile --benchmark-disable -m "not slow and not vm and not daemon"

fuzz: develop ## Feed parser, decoder and router random input for FUZZ_S seconds (600)
	@FUZZ_S=$(FUZZ_S) $(BIN)/python -m pytest -q tests/fuzz

format: develop ## Format the sources and sort their imports
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: develop ## Measure; rows, goals and percentiles
	@$(BIN)/hearth setup
	@$(BIN)/hearth bench

lock: develop ## Resolve dependencies anew into the lock files
	@packaging/lock

clean: ## Remove what building and testing left in this tree
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks .import_linter_cache build dist
	@find src tests -name __pycache__ -type d -exec rm -rf {} +

.PHONY: help setup demo develop test check fuzz format bench lock clean
