# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test lint types checks fuzz clean

demo: $(VENV)/installed-pruning
	$(BIN)/dcformat compress lenet-300-100 -f -o lenet.dcf
	$(BIN)/dcformat inspect lenet.dcf
	$(BIN)/dcformat run lenet.dcf --data data/mnist

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev
	$(BIN)/mypy

# The same tests where kernels run as plain Python, and compiled with bounds checks.
checks: $(VENV)/installed-dev
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -m "not slow" tests/format tests/runtime
	NUMBA_BOUNDSCHECK=1 $(BIN)/python -m pytest -m "not slow" tests/format tests/runtime

# Fuzz every way into the package for so many seconds; findings are saved in fuzz/work (docs/fuzzing.md).
FUZZ_SECONDS ?= 600
fuzz: $(VENV)/installed-dev
	$(BIN)/python fuzz/main.py --seconds $(FUZZ_SECONDS)

# Editable, so that a change in the checkout is a change in the command.
$(VENV)/installed-%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e '.[$(if $(filter dev,$*),pruning$(comma)dev,$*)]'
	touch $@

comma := ,

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
