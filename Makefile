# make lab      three nodes on this machine, with mail to try
# make test     every test; those that need Docker skip, and say so, where there is no engine
# make check    ruff, mypy --strict, the layers of the house
# make install  .venv with .venv/bin/mailroot and .venv/bin/winpop

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install lab test check bench clean

install: $(VENV)/installed-lab

$(VENV)/installed-lab: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[lab]'
	touch $@

$(VENV)/installed-test: pyproject.toml $(VENV)/installed-lab
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

lab: install
	$(BIN)/mailroot lab

test: $(VENV)/installed-test
	$(BIN)/python -m pytest

check: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed-test
	$(BIN)/python bench/session_cost.py

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
