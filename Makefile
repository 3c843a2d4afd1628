# Everything is installed into .venv beside this file, the first time and whenever its list changes.
# Another interpreter: make test PYTHON=python3.12

BIN := .venv/bin
TEST_EXTRAS := cli report train test

.PHONY: help demo test test-all lint clean test-environment
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

demo: ## enhance a made-up brain and draw what came out, into demo/
	@sh tools/setup.sh cli report
	@$(BIN)/mcsr demo -o demo

test: lint ## lint, types and the quick tests (under 15 minutes on 2 cores)
	@$(BIN)/python -m pytest -m "not slow"

test-all: lint ## the same with the long tests
	@$(BIN)/python -m pytest

lint: test-environment ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## remove .venv, demo/ and all caches
	rm -rf .venv demo build .pytest_cache .mypy_cache .ruff_cache .hypothesis MultiContrastSR/Logic/*.egg-info
	find MultiContrastSR Testing -name __pycache__ -type d -prune -exec rm -rf {} +

test-environment:
	@sh tools/setup.sh $(TEST_EXTRAS)
