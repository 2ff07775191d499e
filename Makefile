# Tests and checks run in one environment made from three locks; the engines' own stays apart.
PYTHON ?= python3.11
LOCKS := envs/driver.lock envs/analysis.lock envs/dev.lock
DEV := .envs/dev-$(shell cat $(LOCKS) | sha256sum | cut -c1-12)
BIN := $(DEV)/bin

# What `make test` leaves to `make test-real`: engines, Docker, Slurm, browsers, whole rehearsals.
REAL := engine or e2e or long or system or command
# Fails for a skip or a warning that isn't listed, and for what is left behind.
CHECKED = $(BIN)/python -m tests.leaks $(BIN)/python -m pytest --reviewed
TOGETHER := --dist loadfile --no-loadscope-reorder

.PHONY: test test-commands test-engines test-real lint format bench rounds locks reference
# Workers and the processes of tests share compiled modules.
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE

# Many tests of logic wait for processes, so three at once share two cores.
test: lint
	$(CHECKED) $(PYTEST) -n 3 $(TOGETHER) -m "not ($(REAL))"

# Of what is left, what needs nothing but Debian and a package index.
test-commands: $(DEV)/complete
	$(CHECKED) $(PYTEST) -n 2 $(TOGETHER) -m "command and not (engine or system or long or e2e)"

# Of what is left, all that needs no minutes and nothing that isn't here. Tests share both cores;
# what measures itself has them alone.
test-engines: $(DEV)/complete
	$(BIN)/python -m pytest $(PYTEST) -n 2 $(TOGETHER) -m "(engine or system or command) and not (long or e2e)"
	$(BIN)/python -m pytest $(PYTEST) -m "e2e and not long"

# Everything that is left, on services that it installs (Debian, as root), starts and stops.
test-real: $(DEV)/complete
	$(BIN)/python -m tests.real $(PYTEST)

lint: $(DEV)/complete
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tests.layering
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/python -m tests.plain_english

format: $(DEV)/complete
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

# The reference of configuration keys and the schema for editors, from the types.
reference: $(DEV)/complete
	$(BIN)/python -m tests.docs.reference

# Ratios measured in one run, never part of the tests.
bench: $(DEV)/complete
	$(BIN)/python -m bench

# The validator beside the official checker on whole published rounds, against a reviewed table.
# ROUNDS holds their checkouts (v5.1, v6.0) and mlcommons/inference of each (v5.1-official at tag
# v5.1.1, v6.0-official): make rounds ROUNDS=../rounds
rounds: $(DEV)/complete
	@test -d "$(ROUNDS)" || (echo "say where the checkouts are: make rounds ROUNDS=DIR"; exit 1)
	$(BIN)/python -m bench.rounds "$(ROUNDS)/v5.1" "$(ROUNDS)/v5.1-official" --round v5.1
	$(BIN)/python -m bench.rounds "$(ROUNDS)/v6.0" "$(ROUNDS)/v6.0-official" --round v6.0

# Versions stay as the locks have them; the digests of their files are looked up again.
locks: $(DEV)/complete
	$(BIN)/python -m steps.commands.relock

$(DEV)/complete:
	$(PYTHON) -I -c 'import sys; sys.path.insert(0, "."); from steps.base.venv import command; sys.exit(command(sys.argv[1:]))' $(DEV) .envs/dev.log $(LOCKS)
