# `make search`: the main job on the embedded digits data. `make collapse`: DARTS's collapse, and PR-DARTS beside it, on
# CIFAR-10 from the TFDS folder DATA, with accuracies from the file TABLE if it is given. `make test`: lint, types, tests.
# `make fuzz`: draws wrong inputs for MINUTES. `make kills`: kills small runs KILLS times. `make docs`: builds the
# documentation into site/. Each creates .venv first, and installs again only when setup.py has changed.

PYTHON ?= python3
WORKERS ?= 2
MINUTES ?= 5
KILLS ?= 20
BIN := .venv/bin

.PHONY: search collapse test fuzz kills docs clean

search: .venv/search.installed
	$(BIN)/python -m prdarts_jax.main --config=configs/digits.py --workdir=runs/digits

collapse: .venv/search.installed
	$(BIN)/python experiments/collapse.py --workdir=runs/collapse --data_dir="$(DATA)" --table="$(TABLE)"

test: .venv/test.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy prdarts_jax
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

fuzz: .venv/test.installed
	$(BIN)/python -m pytest -s tests/test_fuzz.py --fuzz=$(MINUTES)

kills: .venv/test.installed
	$(BIN)/python -m pytest -s --slow tests/test_kill.py --kills=$(KILLS)

docs: .venv/docs.installed
	$(BIN)/mkdocs build --strict

.venv/search.installed: EXTRA :=
.venv/test.installed: EXTRA := [test]
.venv/docs.installed: EXTRA := [docs]
.venv/%.installed: setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.$(EXTRA)'
	touch $@

clean:
	rm -rf .venv
