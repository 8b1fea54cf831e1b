# `make demo` and `make test` on a machine with nothing but Python 3.11 or newer: they make .venv and install first.
PYTHON ?= python3
BIN := .venv/bin

RUN := runs/demo

.PHONY: install demo test bench docs lint format clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,toy]'
	touch $@

demo: install
	$(BIN)/omni-avsr demo --out $(RUN)

# Two workers with one torch thread each are faster than one with two.
test: install
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

# All benchmarks, or one of them: `make bench ONLY=step`.
bench: install
	$(BIN)/python -m benchmarks --write docs/performance.md $(if $(ONLY),--only $(ONLY))

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist site *.egg-info
