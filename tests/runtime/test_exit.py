"""Everything that the interpreter reads while it exits must be alive."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from dcformat_runtime.kernels import interpreter

PROGRAM = """
import ctypes, gc
from dcformat.jit.machine_code import loader
from dcformat_runtime.kernels import interpreter
function = interpreter.wait.resolve()
definition = ctypes.c_void_p.from_address(id(function) + 16).value
before = ctypes.string_at(definition, 20)
loader.__dict__.clear()
interpreter.__dict__.clear()
gc.collect()
others = [ctypes.create_string_buffer(b"?" * 31) for _ in range(10_000)]
assert ctypes.string_at(definition, 20) == before
"""


def test_a_loaded_kernel_outlives_the_module_that_loaded_it() -> None:
    interpreter.wait.resolve()
    if interpreter.wait.state not in ("saved", "compiled"):
        pytest.skip("no machine code is loaded")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", PROGRAM], env=env, check=True, timeout=600)
