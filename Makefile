# The words people expect. `make install` is done by each of them when it is needed, and only then.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.medmind-installed

.PHONY: help install demo test check clean

help:
	@echo "make demo     fine-tune, convert, benchmark and ask the embedded model, on the CPU, offline after the install"
	@echo "make test     the default test suite"
	@echo "make check    ruff, mypy --strict, import-linter"
	@echo "make install  only the environment in $(VENV)"
	@echo "make clean    remove $(VENV) and caches; runs/ is kept"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt scripts/install.sh scripts/llama_build.cmake
	@PYTHON="$(PYTHON)" VENV="$(VENV)" bash scripts/install.sh
	@touch $@

demo: $(STAMP)
	@BIN="$(BIN)" bash scripts/demo.sh

test: $(STAMP)
	$(BIN)/python -m pytest -q

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
