# Two commands for a stranger: `make demo` shows it, `make test` proves it. Both set up what they need in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := pyproject.toml constraints.txt

# The tests start these programs some hundred times: compiled once is enough.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test bench bench-quick chaos fuzz binary format lint types contracts unit system-packages clean help

help:
	@echo "make demo    an ImagePrePullJob on three nodes, from a private registry (ARGS='--keep' and others are passed on)"
	@echo "make test    set-up, then the gate: format, lint, types, import contracts, all tests"
	@echo "make bench   speed and memory with 10,000 and more nodes, as a table (ARGS='--case NAME', '--idle-minutes 2')"
	@echo "make bench-quick  the same with 1,000 nodes, for its invariants alone"
	@echo "make chaos   processes killed, API servers that fail, full disks, cut networks: half an hour of rounds (ARGS='--seed N', '--list')"
	@echo "make fuzz    bad input into every way in, for longer than the gate does (ARGS='--minutes 5', '--target NAME')"
	@echo "make binary  dist/edgehub: the agent as one file for nodes, which need no Python"
	@echo "make format  rewrites the code in the house format"
	@echo "make unit    the tests that need no container runtime and no root"
	@echo "make clean   removes the virtual environment and caches"

demo: $(VENV)/.runtime
	@$(BIN)/cloudhub demo $(ARGS)

test: system-packages $(VENV)/.dev
	@$(MAKE) --no-print-directory lint types contracts
	$(BIN)/pytest -n 2 $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports

unit: $(VENV)/.dev
	$(BIN)/pytest tests/unit $(ARGS)

format: $(VENV)/.dev
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	@$(BIN)/python -m tests.bench $(ARGS)

bench-quick: $(VENV)/.dev
	@$(BIN)/python -m tests.bench --quick $(ARGS)

chaos: system-packages $(VENV)/.dev
	@$(BIN)/python -m tests.chaos $(ARGS)

fuzz: $(VENV)/.dev
	@$(BIN)/python -m tests.fuzz $(ARGS)

# tests/e2e/test_binary.py makes it too, so that what the gate tested is what these sources give.
binary: dist/edgehub

dist/edgehub: $(VENV)/.dev $(shell find edgehub shared docker/binary -name '*.py' -o -name '*.spec' -o -name '*.sh')
	@sh docker/binary/build.sh $(BIN)

# The marker files say for which pyproject.toml the environment was made. `dev` is a superset of `runtime`.
$(VENV)/.runtime: $(SETUP) | $(VENV)/bin/pip
	@echo "setting up $(VENV): the programs' Python packages"
	@$(BIN)/pip install -q --disable-pip-version-check -e '.[cloud]' -c constraints.txt
	@touch $@

$(VENV)/.dev: $(SETUP) | $(VENV)/bin/pip
	@echo "setting up $(VENV): the programs' and the tests' Python packages"
	@$(BIN)/pip install -q --disable-pip-version-check -e '.[cloud,dev]' -c constraints.txt
	@touch $@ $(VENV)/.runtime

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or later is needed; name it with: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || sh tests/install-debian-packages.sh python3-venv
	@$(PYTHON) -m venv $(VENV)

system-packages:
	@sh tests/install-debian-packages.sh $$(cat tests/debian-packages.txt)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
