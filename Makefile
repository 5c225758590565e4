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
SEEDS  ?= 10000
FIRST  ?= 0
SOAK_SECONDS ?= 600
NATIVE := build/native/manifest.json
SIMULATOR := $(addprefix tests/sim/,clients cluster faults host judge run service watch world)
SOURCES = $(shell find consensus profiling protocol -name '*.py' '(' -not -path 'profiling/bench/*' -o -path 'profiling/bench/lane/*' ')')

.DEFAULT_GOAL := help
WANTED  = import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v < (3, 15) and f"error: Python 3.11 to 3.14 is needed, this is {v[0]}.{v[1]}; call make with PYTHON=python3.12")
.PHONY: help setup setup-bench native run up test test-native test-all test-seeds test-seeds-soak test-soak test-memory test-peers test-cluster scenarios lint format bench warmup clean

help:            ## this text
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | sort | \
	  awk -F '\t' '{ printf "  make %-16s %s\n", $$1, $$2 }'

setup: $(STAMP)  ## make .venv with locked, hashed dependencies and .venv/bin/swarm

$(STAMP): requirements/dev.lock pyproject.toml
	@$(PYTHON) -c '$(WANTED)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing locked dependencies into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup-bench: $(PEERS) ## make .venv-bench with the peers that we are measured against

# Wheels first; two peers come as source and are built with the tools among them. etcd comes from Debian, where there is
# one and no etcd on the PATH; elsewhere `swarm bench consensus` says what it misses.
$(PEERS): requirements/bench.lock
	@$(PYTHON) -c '$(WANTED)'
	@test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	@echo "installing the locked peers into $(BENCH) ..."
	@sed -E '/^(fastdtw|pysyncobj)==/,/# via/d' $< > $(BENCH)/wheels.lock
	@$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r $(BENCH)/wheels.lock
	@$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-build-isolation --no-deps --no-cache-dir -r $<
	@command -v etcd >/dev/null || test -x $(BENCH)/etcd/usr/bin/etcd || ! command -v apt-get >/dev/null || \
	  (cd $(BENCH) && apt-get download -qq etcd-server && dpkg -x etcd-server_*.deb etcd) || echo "etcd could not be fetched"
	@touch $@

run: native      ## set up, start the swarm, trade 200 cycles of real data at 10 bars a second (RATE=0: no pause), report
	@$(BIN)/swarm up --cycles $(CYCLES) --mode $(MODE) --rate $(RATE)

up: run          ## the same as run

native: setup $(NATIVE) ## compile the hot modules with mypyc, where there is a C compiler (docs/native.md)

$(NATIVE): $(SOURCES) | $(STAMP)
	@$(BIN)/python -m protocol.native_build

warmup: setup    ## compile the kernels
	@$(BIN)/swarm warmup

test: setup      ## the default suite, about five minutes: first what starts no agents, in two processes, then the rest
	@$(BIN)/python -m pytest -m "not processes and not cluster and not soak and not peers" -n 2 --dist loadfile
	@$(BIN)/python -m pytest -m "processes and not soak"

test-native: native ## consensus, the wire and a whole swarm, with the hot modules compiled
	@SWARM_NATIVE=1 $(BIN)/python -m pytest -m "not processes and not soak and not sources" -n 2 --dist loadfile tests/consensus tests/protocol
	@SWARM_NATIVE=1 $(BIN)/python -m pytest -m "processes and not soak" tests/processes/test_run.py::test_default_run_loses_nothing_and_uses_both_paths tests/nemesis/test_nemesis.py

test-seeds: native ## the lane in 10,000 hostile worlds, in ten minutes at most (SEEDS=10000 FIRST=0)
	@$(BIN)/python -m tests.sim --seeds $(SEEDS) --first $(FIRST) --seconds-max 600

test-seeds-soak: setup ## a million of them: hours, with the simulator compiled too; goes on where it was interrupted
	@$(BIN)/python -m protocol.native_build $(SIMULATOR)
	@$(BIN)/python -m tests.sim --seeds 1000000 --into docs/benchmarks/lane-seeds-soak.json

test-soak: setup ## days of the wire in virtual time, ten million mutated frames, hostile peers, memory under load
	@$(BIN)/python -m pytest -m soak --timeout 3600 -o faulthandler_timeout=0

test-memory: setup ## two processes at full load with either library, and their memory (SOAK_SECONDS=600)
	@SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m pytest -m soak -o faulthandler_timeout=0 tests/memory

test-all: setup  ## the default suite, the soaks, the peers and the containers
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory test-native
	@$(MAKE) --no-print-directory test-soak
	@$(MAKE) --no-print-directory test-peers
	@$(MAKE) --no-print-directory test-cluster

test-peers: setup setup-bench ## our DTW against other libraries, case by case
	@$(BIN)/python -m pytest -m peers tests/peers

test-cluster: setup ## build, start, trade and stop the containers; skipped where no Docker engine runs
	@$(BIN)/python -m pytest -m cluster --timeout 1500 -o faulthandler_timeout=0 tests/cluster

scenarios: setup ## run the lane's transcripts and write what they print now; review the diff like code
	@UPDATE_SCENARIOS=1 $(BIN)/python -m pytest -q tests/consensus/test_raft_scenarios.py
	@git diff --stat -- tests/consensus/scenarios

lint: setup      ## ruff, ruff format and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: setup    ## rewrite the sources in the house format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: native    ## the system benchmark: both modes interleaved, results as JSON
	@$(BIN)/swarm bench system --json

clean:           ## remove what make and the runs made; keep fetched data and compiled kernels of the user's cache
	@rm -rf $(VENV) $(BENCH) build dist runs cluster *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
