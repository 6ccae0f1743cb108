# Every target installs what it needs by itself, into .venv, and can be repeated.
#   make demo               the demo study on made landscapes
#   make demo DATA=FOLDER   the same on a folder with images/, masks/ and meta_data.csv
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
# The study of a data folder bears its name: another folder is another study.
NAME := $(shell basename '$(DATA)' | tr -c 'A-Za-z0-9._\n-' '-' | cut -c1-40)

.PHONY: setup demo test test-slow check bench calibrate chaos
setup: $(INSTALLED)

# PIP_CONSTRAINT: exact versions, whatever a machine's own pip settings say.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Canopoint needs Python 3.11 or newer; name one with make PYTHON=..." >&2; exit 2; }
	@echo "installing into .venv (once; torch and its CUDA libraries are some 5 GB)"
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -q -e '.[dev]'
	@touch $@

demo: $(INSTALLED)
	@$(BIN)/canopoint run $(if $(DATA),demo_images --set 'data.root="$(DATA)"' --set 'study="demo-$(NAME)"',demo)

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not cluster"

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow and not cluster"
	$(BIN)/python -m pytest -m cluster

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(INSTALLED)
	$(BIN)/python -m bench.run
	$(BIN)/python -m bench.gpu

# How often findings are wrong, in 2,000 simulated studies a case; build/calibrate.json. Some ten minutes.
calibrate: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m bench.calibrate

# Kills workers, drivers (SIGKILL, SIGTERM) and nodes; build/chaos.json. The defaults take most of an hour.
chaos: WORKERS ?= 50
chaos: DRIVERS ?= 20
chaos: TERMS ?= 30
chaos: NODES ?= 10
chaos: $(INSTALLED)
	$(BIN)/python -m bench.chaos --workers $(WORKERS) --drivers $(DRIVERS) --terms $(TERMS) --nodes $(NODES)
