# Everything a newcomer needs; `make help` fits on one screen.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
BENCH  := .venv-bench
PEERS  := $(BENCH)/.installed
CYCLES ?= 200
RATE   ?= 10
MODE   ?= optimized

.DEFAULT_GOAL := help
WANTED  = import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v < (3, 15) and f"error: Python 3.11 to 3.14 is needed, this is {v[0]}.{v[1]}; call make with PYTHON=python3.12")
.PHONY: help setup setup-bench run up test test-all test-soak test-peers test-cluster lint format bench warmup clean

help:            ## this text
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | sort | \
	  awk -F '\t' '{ printf "  make %-14s %s\n", $$1, $$2 }'

setup: $(STAMP)  ## make .venv with locked, hashed dependencies and .venv/bin/swarm

$(STAMP): requirements/dev.lock pyproject.toml
	@$(PYTHON) -c '$(WANTED)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing locked dependencies into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup-bench: $(PEERS) ## make .venv-bench with the peers that we are measured against

# Wheels first; fastdtw comes as source and is built with the tools among them.
$(PEERS): requirements/bench.lock
	@$(PYTHON) -c '$(WANTED)'
	@test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	@echo "installing the locked peers into $(BENCH) ..."
	@sed '/^fastdtw==/,/# via/d' $< > $(BENCH)/wheels.lock
	@$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r $(BENCH)/wheels.lock
	@$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-build-isolation --no-deps --no-cache-dir -r $<
	@touch $@

run: setup       ## set up, start the swarm, trade 200 cycles of real data at 10 bars a second (RATE=0: no pause), report
	@$(BIN)/swarm up --cycles $(CYCLES) --mode $(MODE) --rate $(RATE)

up: run          ## the same as run

warmup: setup    ## compile the kernels
	@$(BIN)/swarm warmup

test: setup      ## the default suite, under five minutes
	@$(BIN)/python -m pytest -m "not cluster and not soak and not peers"

test-soak: setup ## days of the wire in virtual time, ten million mutated frames
	@$(BIN)/python -m pytest -m soak --timeout 3600 -o faulthandler_timeout=0

test-all: setup  ## the default suite, the soaks, the peers and the containers
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory test-soak
	@$(MAKE) --no-print-directory test-peers
	@$(MAKE) --no-print-directory test-cluster

test-peers: setup setup-bench ## our DTW against other libraries, case by case
	@$(BIN)/python -m pytest -m peers tests/peers

test-cluster: setup ## build, start, trade and stop the containers; skipped where no Docker engine runs
	@$(BIN)/python -m pytest -m cluster --timeout 1500 -o faulthandler_timeout=0 tests/cluster

lint: setup      ## ruff, ruff format and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: setup    ## rewrite the sources in the house format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: setup     ## the system benchmark: both modes interleaved, results as JSON
	@$(BIN)/swarm bench system --json

clean:           ## remove what make and the runs made; keep fetched data and compiled kernels of the user's cache
	@rm -rf $(VENV) $(BENCH) build dist runs cluster *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
