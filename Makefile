# `make train` and `make test` do everything they need on a machine with Python 3.10+, git and make.
# By hand: python3 -m venv .venv && .venv/bin/pip install -e '.[dev,export]' && .venv/bin/python -m gradnorm_plugin setup

PYTHON ?= python3
ARGS ?=
TESTS ?=
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup train test lint clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 16
	@echo '  make train ARGS="--epochs 50"   passes flags to training; make test TESTS=tests/test_labels.py runs one file'

# The stamp is written last, so an interrupted installation is redone.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "ERROR: Python 3.10 or later is needed: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@# One command, so that pip picks matching versions of torch and torchvision
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[dev,export]'
	@# opencv-python needs the system's libGL, which servers lack; there the headless build replaces it
	@$(BIN)/python -c 'import cv2' 2>/dev/null || $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps opencv-python-headless
	@touch $@

setup: $(STAMP) ## create .venv, install, fetch and patch yolov5/
	@$(BIN)/python -m gradnorm_plugin setup

train: setup ## train on data/joint.yaml (generated if missing)
	$(BIN)/python train_joint_gradnorm_fixed.py $(ARGS)

lint: $(STAMP) ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: setup lint ## check style and types, run the tests
	@# One process per five files, because loading PyTorch takes longer than most of them; JOBS at a time, longest first
	@if [ -n '$(TESTS)' ]; then $(BIN)/python -m pytest $(TESTS); else \
		ls -S tests/test_*.py | xargs -n 5 -P $(JOBS) $(BIN)/python -m pytest --durations=0 --durations-min=20; fi

clean: ## remove .venv and caches; keeps yolov5/, runs/ and datasets/
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info .yolov5-setup-*
	find gradnorm_plugin gradnorm_demo tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
