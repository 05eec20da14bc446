"""Modules that a process must not import to load and run a file: each costs more time than reading the file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dcformat
from dcformat import Model, from_dense
from dcformat.graph import Graph, Linear

ROOT = Path(__file__).parents[2]
SLOW = {
    "concurrent.futures", "contextvars", "crc32c", "dataclasses", "dcformat.chunk_stream",
    "dcformat.codecs.axis_tables", "dcformat.codecs.payload_writer", "dcformat.codecs.usage",
    "dcformat.codecs.value_blocks", "dcformat.contents_writer", "dcformat.delta_codec", "dcformat.forms",
    "dcformat.jit.background", "dcformat.writer", "dcformat_runtime.graph_session", "dcformat_runtime.segments",
    "dcformat_runtime.worker_pool", "email", "hashlib", "heapq", "importlib.metadata", "importlib.util", "llvmlite",
    "logging", "numba", "pathlib", "platformdirs", "shutil", "tempfile", "threading", "torch", "zipfile",
}  # fmt: skip
#: Maximum numbers of our modules, and of others after `import numpy`, for each mode. Each takes about 0.2 ms, so a
#: module that few files need is imported by the function that needs it.
MOST = {"fast": (112, 10), "small": (113, 11)}
#: All modules that a process imports to run a network that was prepared; of others, those that NumPy does not import.
PREPARED = {
    "dcformat", "dcformat.errors", "dcformat.jit", "dcformat.jit.abi", "dcformat.jit.cpuinfo",
    "dcformat.jit.machine_code", "dcformat.jit.machine_code.image", "dcformat.jit.machine_code.loader",
    "dcformat.jit.machine_code.store", "dcformat.jit.observer", "dcformat.jit.settings", "dcformat.layout",
    "dcformat.limits", "dcformat.records", "dcformat.wording", "dcformat_runtime", "dcformat_runtime.backends",
    "dcformat_runtime.cpu", "dcformat_runtime.engine", "dcformat_runtime.input_rows", "dcformat_runtime.kernels",
    "dcformat_runtime.kernels.control", "dcformat_runtime.prepared", "dcformat_runtime.program_record",
    "dcformat_runtime.session",
}  # fmt: skip
PREPARED_OTHERS = {"__future__", "_blake2", "_sha256", "_sha2", "binascii", "mmap"}
WEIGHT = np.where(np.arange(24).reshape(4, 6) % 5, np.float32(0), np.float32(0.5))
MODEL = Model({"w": from_dense("w", WEIGHT)}, Graph.sequential((6,), (Linear((0,), "w"),)))
SCRIPT = """
import json, sys
import numpy as np
before = set(sys.modules)
import dcformat_runtime
session = dcformat_runtime.load(sys.argv[1], threads=1)
session(np.ones((2, 6), np.float32))
print(json.dumps(sorted(set(sys.modules) - before)))
"""
WARM = """
import sys
import numpy as np
import dcformat_runtime
from dcformat import jit
session = dcformat_runtime.load(sys.argv[1], threads=1, backend="numba")
session(np.ones((2, 6), np.float32))
jit.warm(jit.kernels())
"""
PREPARE = """
import sys
import dcformat_runtime
dcformat_runtime.prepare(sys.argv[1])
"""


def imported(path: Path, *scripts: str) -> tuple[set[str], set[str]]:
    """Run scripts, each in a process; return our own modules that the last one imports, and the others."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "runtime")))}
    env.pop("NUMBA_BOUNDSCHECK", None)  # with it, every process would compile the kernels again
    for script in scripts:
        done = subprocess.run([sys.executable, "-c", script, path], env=env, capture_output=True, text=True, check=True)
    names = set(json.loads(done.stdout))
    own = {name for name in names if name.partition(".")[0] in ("dcformat", "dcformat_runtime")}
    return own, names - own


@pytest.mark.needs_compiler
@pytest.mark.parametrize("mode", MOST)
def test_loading_and_running_a_file_imports_little(tmp_path, mode):
    weight = np.where(np.arange(24).reshape(4, 6) % 5, np.float32(0), np.float32(0.5))
    path = tmp_path / "net.dcf"
    dcformat.save(Model({"w": from_dense("w", weight)}, Graph.sequential((6,), (Linear((0,), "w"),))), path, mode=mode)
    own, others = imported(path, WARM, SCRIPT)
    assert SLOW & (own | others) == set()
    assert len(own) <= MOST[mode][0]
    assert len(others) <= MOST[mode][1]


@pytest.mark.needs_compiler
def test_running_a_prepared_network_imports_these_modules_only(tmp_path):
    path = tmp_path / "net.dcf"
    dcformat.save(MODEL, path)
    own, others = imported(path, PREPARE, SCRIPT)
    assert own == PREPARED
    assert others <= PREPARED_OTHERS


def test_the_checksum_is_the_packages():
    import crc32c

    from dcformat.cheap_imports import extension_module, load_crc32c
    from dcformat.digest import crc32c as ours

    for data in (b"", b"123456789", bytes(range(256))):
        expected = crc32c.crc32c(data)
        assert ours(data) == expected.to_bytes(4, "little")
        assert load_crc32c()(data) == expected
    found = extension_module("crc32c", "_crc32c")
    assert found is not None
    assert found.crc32c(b"123456789") == 0xE3069283
    assert extension_module("crc32c", "_missing") is None
    assert extension_module("no_such_package", "_crc32c") is None
