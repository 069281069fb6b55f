# Every target installs what it needs: `make sweep` and `make test` work on a fresh machine.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SLOWEST := --durations=20 --durations-min=1  # with the seconds per directory: tests/suite_times.py
MODULE_SECONDS ?= 400  # more than that for the tests of one file fails `make test-slow`

.PHONY: help setup sweep test test-slow test-gpu chaos cluster-test benchmark check format base-models ci clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*##/\t/' | expand -t 14

setup: $(READY) ## make the virtual environment .venv with pinned packages

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

sweep: $(READY) ## run the quickstart sweep (again: resume it)
	$(BIN)/python -m orchestrator.sweep

test: $(READY) ## run the fast tests
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow and not gpu' $(SLOWEST)

test-slow: $(READY) ## run the slow tests, two files at a time
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'slow and not gpu' $(SLOWEST) --module-seconds $(MODULE_SECONDS)

test-gpu: $(READY) ## run the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

chaos: $(READY) ## run the tests that break sweeps, 20 random rounds (CHAOS_ROUNDS, CHAOS_SEED)
	CHAOS_ROUNDS=$${CHAOS_ROUNDS:-20} $(BIN)/python -m pytest -s tests/chaos

cluster-test: $(READY) ## test ray up, sweeps, lost hosts and ray down on test hosts (root, sshd, rsync)
	$(BIN)/python -m pytest -s tests/cluster

benchmark: $(READY) ## measure what a sweep costs besides training, against plain Ray Tune
	$(BIN)/python -m benchmarks.overhead

check: $(READY) ## run ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## format the code with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

base-models: $(READY) ## pre-train the embedded base models again (takes long)
	$(BIN)/python -m base_models.pretrain small
	$(BIN)/python -m base_models.pretrain large

ci: check test test-slow ## run every check that needs no GPU

clean: ## remove the virtual environment
	rm -rf $(VENV)
