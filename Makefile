# The words people expect. `make install` is done by each of them when it is needed, and only then.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.medmind-installed
# What the user asked for by variable; a call without any leaves what was asked for before.
ASKED := $(VENV)/.medmind-asked
export TORCH_INDEX LLAMA_CMAKE_ARGS

.PHONY: help install demo test reference check clean FORCE

help:
	@echo "make demo     fine-tune, convert, benchmark and ask the embedded model, on the CPU, offline after the install"
	@echo "make test     the default test suite"
	@echo "make reference  builds llama.cpp's own tools and compares with them"
	@echo "make check    ruff, mypy --strict, import-linter"
	@echo "make install  only the environment in $(VENV)"
	@echo "make clean    remove $(VENV) and caches; runs/ is kept"

install: $(STAMP)

$(ASKED): FORCE
	@mkdir -p "$(VENV)"
	@if [ -n "$$TORCH_INDEX$$LLAMA_CMAKE_ARGS" ] && [ "$$TORCH_INDEX $$LLAMA_CMAKE_ARGS" != "$$(cat $@ 2>/dev/null)" ] || [ ! -e $@ ]; \
	then printf '%s\n' "$$TORCH_INDEX $$LLAMA_CMAKE_ARGS" > $@; fi

$(STAMP): pyproject.toml constraints.txt scripts/install.sh scripts/llama_build.cmake $(wildcard scripts/llama_*.h scripts/llama_*.cpp) $(ASKED)
	@PYTHON="$(PYTHON)" VENV="$(VENV)" bash scripts/install.sh
	@touch $@

demo: $(STAMP)
	@BIN="$(BIN)" bash scripts/demo.sh

# A worker a core, at most four: each holds torch. One thread each, or they wait for one another's. Bytecode is kept
# whatever the environment says: some hundred processes start, and each would compile all of medmind.
# Files in their order: by their number of tests, the long ones of few tests would come last and one worker would idle.
test: $(STAMP)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

reference: $(STAMP)
	@VENV="$(VENV)" bash scripts/llama_tools.sh
	$(BIN)/python -m pytest -q -m reference

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
