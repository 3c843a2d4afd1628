# Everything is installed into .venv beside this file, the first time and whenever its list changes.
# Another interpreter: make test PYTHON=python3.12

BIN := .venv/bin
TEST_EXTRAS := report train test docs
SEED := $(shell date +%s)

.PHONY: help demo docs test test-all fuzz lint faults seeded-faults clean test-environment
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

demo: ## enhance a made-up brain and draw what came out, into demo/
	@sh tools/setup.sh report
	@$(BIN)/mcsr demo -o demo

docs: test-environment ## build the pages of docs/ as a site, into build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test: lint ## lint, types and the quick tests (under 15 minutes on 2 cores)
	@$(BIN)/python -m pytest -m "not slow"

test-all: lint ## the same with the long tests
	@$(BIN)/python -m pytest

fuzz: test-environment ## 2,200 made-up inputs and three large ones; SEED=... draws the same again
	$(BIN)/python -m pytest Testing/Python/test_fuzz_*.py --hypothesis-profile=fuzz --hypothesis-seed=$(SEED) \
		--hypothesis-show-statistics

lint: test-environment ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

faults: test-environment ## kill jobs at 200 random moments; nothing partial is ever taken for whole
	@$(BIN)/python tools/faults.py

seeded-faults: test-environment ## seed listed faults into the code; its own tests must catch 90 %
	@$(BIN)/python tools/seeded_faults.py --jobs 2

clean: ## remove .venv, demo/ and all caches
	rm -rf .venv demo build .pytest_cache .mypy_cache .ruff_cache .hypothesis MultiContrastSR/Logic/*.egg-info
	find MultiContrastSR Testing -name __pycache__ -type d -prune -exec rm -rf {} +

test-environment:
	@sh tools/setup.sh $(TEST_EXTRAS)
