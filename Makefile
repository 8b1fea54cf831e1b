# `make demo` and `make test` on a machine with nothing but Python 3.11 or newer: they make .venv and install first.
PYTHON ?= python3
BIN := .venv/bin

RUN := runs/demo

.PHONY: install demo test bench lint format clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,toy]'
	touch $@

demo: install
	$(BIN)/omni-avsr demo --out $(RUN)

test: install
	$(BIN)/pytest

bench: install
	$(BIN)/python -m benchmarks --write docs/performance.md

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist *.egg-info
