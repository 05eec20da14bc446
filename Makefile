# Two commands do everything on a fresh machine: `make demo` and `make test`. CONTRIBUTING.md lists the others.
PYTHON ?= python3
# The oldest dependencies have wheels for the oldest Python.
LOWEST_PYTHON ?= $(or $(shell command -v python3.11),$(PYTHON))
VENV ?= .venv
BIN := $(VENV)/bin
PIP := python -m pip --disable-pip-version-check --quiet
# Tests start hundreds of processes, each of which would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo docs test thorough coverage lint types checks plain-python bounds without-numba lowest wheel edge emulation fuzz clean

demo: $(VENV)/installed-pruning
	$(BIN)/dcformat compress lenet-300-100 -f -o lenet.dcf
	$(BIN)/dcformat inspect lenet.dcf
	$(BIN)/dcformat run lenet.dcf --data data/mnist

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m "not slow"

# The tests that `make test` leaves out because they take long.
thorough: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev
	$(BIN)/mypy

# Tests that run kernels, where these run as plain Python, and compiled with bounds checks.
checks: plain-python bounds

# Plain Python takes some hundred times as long, so tests take smaller inputs there, or none. NumPy checks bounds too, so
# only these tests are repeated with compiled kernels that do. Exported C is the same however kernels run, and the tests
# in tests/jit set that themselves.
KERNEL_TESTS := $(filter-out %/test_c_export.py,$(wildcard tests/format/test_*.py tests/runtime/test_*.py))
SCALED_TESTS := $(shell grep -lE "COMPILED|=examples|mark.needs_compiler" $(KERNEL_TESTS))
plain-python: $(VENV)/installed-dev
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -m "not slow and not needs_compiler" $(KERNEL_TESTS)

bounds: $(VENV)/installed-dev
	NUMBA_BOUNDSCHECK=1 $(BIN)/python -m pytest -m "not slow" $(SCALED_TESTS)

# The command as on a machine that has neither Numba nor llvmlite.
without-numba: $(VENV)/installed-dev
	PYTHONPATH=tests/without_numba $(BIN)/python -m pytest -m "not slow and not needs_compiler" tests/cli

# The format and the command with the oldest dependencies that pyproject.toml allows (without PyTorch).
LOWEST := tests/format tests/jit $(patsubst %,tests/cli/test_%.py,help inspect verify run terminal failures)
lowest: $(VENV)-lowest/installed
	$(VENV)-lowest/bin/python -m pytest -m "not slow" $(LOWEST)

# Coverage cannot see into compiled code, so kernels are run as Python too. Tests must reach every line and every branch of the
# modules that read bytes of unknown origin.
READERS := $(addprefix dcformat/,chunk_stream.py contents.py cursor.py delta_codec.py deltas.py front.py graph_attributes.py \
    graph_codec.py opening.py reader.py remote.py source.py) \
  $(addprefix dcformat/graph/,elementwise.py graph.py node.py rearranging.py recurrent.py reducing.py weighted.py windows.py) \
  $(addprefix dcformat/codecs/,axis_tables.py chunk_readers.py differences.py packed.py payload_layout.py payload_reader.py plain.py \
    value_blocks.py) \
  $(addprefix interop/dcformat_interop/,checkpoint_reader.py deep_compression_net.py kinds.py mask_folding.py nesting.py npy.py \
    npz.py safetensors.py tensors.py torch_files.py onnx_import/loading.py) \
  $(addprefix interop/dcformat_interop/packing/,indexes.py origin.py shards.py) \
  $(addprefix interop/dcformat_interop/tflite_import/,constant_tensors.py flatbuffer.py loading.py quantization.py sparsity.py)
coverage: $(VENV)/installed-dev
	$(BIN)/python -m pytest --cov --cov-report=
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -m "not slow and not needs_compiler" $(KERNEL_TESTS) --cov --cov-append --cov-report=term
	$(BIN)/python -m coverage report --show-missing --fail-under=100 --include=$(subst $(space),$(comma),$(strip $(READERS)))

# The site of docs/, in site/: it works from a file. A warning is an error.
docs: $(VENV)/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# Wheels with the machine code of all kernels, for each processor that dcformat/jit/machine_code/targets.py lists, and for
# the Python that runs here. MACHINES="x86_64 aarch64" makes both; the same sources give the same bytes.
MACHINES ?= $(shell uname -m)
TARGETS_x86_64 ?= x86-64-v2 x86-64-v3 x86-64-v4
TARGETS_aarch64 ?= aarch64
wheel: $(MACHINES:%=wheel-%)
wheel-%: $(VENV)/installed-dev
	rm -rf build/$*
	for target in $(TARGETS_$*); do $(BIN)/dcformat warmup --target $$target --into build/$* -f || exit 1; done
	DCFORMAT_WHEEL_KERNELS=build/$*/kernels DCFORMAT_WHEEL_MACHINE=$* $(BIN)/python -m hatchling build --target wheel

# The command as on a small machine: from the wheel, with NumPy, crc32c and click alone.
edge: wheel
	rm -rf $(VENV)-edge && $(PYTHON) -m venv $(VENV)-edge
	$(VENV)-edge/bin/$(PIP) install -c constraints.txt -r packaging/edge-requirements.txt
	$(VENV)-edge/bin/$(PIP) install --no-deps --no-index --find-links dist dcformat
	$(VENV)-edge/bin/python packaging/try_edge.py

# The runtime's tests on an emulated AArch64 machine, with the machine code that a wheel for it carries. Needs Debian and
# its package qemu-user, but no root; without these, it says so and skips. Downloads 30 MB into build/emulation, once.
EMULATED ?= tests/runtime -m "not slow and not needs_compiler"
emulation: $(VENV)/installed-dev
	$(BIN)/dcformat warmup --target aarch64 --into build/aarch64 -f
	$(BIN)/python tests/emulation/suite.py --kernels build/aarch64 --into build/emulation -- $(EMULATED)

# Fuzz every entry point of the package for FUZZ_SECONDS; findings are saved in fuzz/work (docs/fuzzing.md).
FUZZ_SECONDS ?= 600
fuzz: $(VENV)/installed-dev
	$(BIN)/python fuzz/main.py --seconds $(FUZZ_SECONDS)

# Editable, so that a change in the checkout is a change in the command.
$(VENV)/installed-%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/$(PIP) install -c constraints.txt -e '.[$(if $(filter dev,$*),pruning$(comma)docs$(comma)dev,$*)]'
	touch $@

$(VENV)-lowest/installed: pyproject.toml constraints-lowest.txt
	test -x $(VENV)-lowest/bin/python || $(LOWEST_PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/$(PIP) install -c constraints-lowest.txt -e . pytest hypothesis
	touch $@

comma := ,
empty :=
space := $(empty) $(empty)

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-edge build dist site .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
