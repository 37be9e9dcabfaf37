PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.docs-ready
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo test lint docs dist check-dist clean

demo: $(READY)
	$(BIN)/entrostat demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# the documentation site, in site/; a warning is an error
docs: $(DOCS_READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# wheel and sdist, in dist/; the wheel is built from the sdist
dist: $(READY)
	rm -rf dist
	$(BIN)/python -m build --outdir dist . > /dev/null

check-dist: dist
	PYTHON=$(BIN)/python scripts/check_dist.sh

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[dev]'
	touch $(READY)

$(DOCS_READY): $(READY)
	$(INSTALL) --editable '.[docs]'
	touch $(DOCS_READY)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist site
