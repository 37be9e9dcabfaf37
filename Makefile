PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.docs-ready
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

HOSTS := trl verl
TESTS_trl := tests/integrations/trl tests/objective/test_parity_trl.py tests/test_own_methods.py::test_they_steer_trl
TESTS_verl := tests/integrations/verl tests/objective/test_parity_verl.py tests/grading/test_ray_pool.py tests/engine/test_study_ray.py \
    tests/integrations/losses/test_steering_ray.py

.PHONY: demo test lint rehearse studies docs dist check-dist clean $(HOSTS:%=test-%)

demo: $(READY)
	$(BIN)/entrostat demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# the tests of one host trainer, in an environment of its own; a test that is skipped there is a failure
$(HOSTS:%=test-%): test-%: $(VENV)-%/.ready
	OMP_NUM_THREADS=1 REQUIRE_HOST=$* WITH_RAY=1 $(VENV)-$*/bin/python -m pytest $(TESTS_$*)

# all that a GPU day runs, small, on the CPU; the part with TRL in TRL's environment
rehearse: $(READY) $(VENV)-trl/.ready
	OMP_NUM_THREADS=1 $(BIN)/python scripts/gpu_day.py --rehearse --out build/rehearsal
	OMP_NUM_THREADS=1 $(VENV)-trl/bin/python scripts/gpu_day.py --rehearse --out build/rehearsal-trl --only trl

# statistics, tables and figures of every study from the data that it commits; `git status` stays clean where they agree
studies: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python studies/read_all.py

# how many of 30 random changes per package the package's own tests notice; see benchmarks/mutation
SEED ?= 1
mutants: $(READY)
	$(INSTALL) cosmic-ray==8.7.0 coverage==7.17.5
	$(BIN)/python benchmarks/mutation/mutate.py run --seed $(SEED) --out mutants-$(SEED).csv
	$(BIN)/python benchmarks/mutation/mutate.py read mutants-$(SEED).csv

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

$(VENV)-%/.ready: pyproject.toml constraints-%.txt
	$(PYTHON) -m venv $(VENV)-$*
	$(VENV)-$*/bin/python -m pip install --quiet --constraint constraints-$*.txt --editable '.[$*-tests]'
	touch $@

clean:
	rm -rf $(VENV) $(HOSTS:%=$(VENV)-%) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist site
