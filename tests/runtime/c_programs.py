"""Compiles exported C on this machine."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from dcformat_runtime.c_export.toolchains import FLAGS

COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]
needs_c_compiler = pytest.mark.skipif(not COMPILERS, reason="neither gcc nor clang is installed")

#: Reads inputs from stdin and writes outputs to stdout, for any number of them.
FILTER = """
#include "model.h"
#include <stdio.h>
int main(void)
{
    static model_input_t input[MODEL_INPUTS];
    static model_output_t output[MODEL_OUTPUTS];
    while (fread(input, sizeof input, 1, stdin) == 1) {
        model_run(input, output);
        fwrite(output, sizeof output, 1, stdout);
    }
    return model_check() ? 0 : 1;
}
"""


def build(folder: Path, files: Mapping[str, str], main: str, *flags: str, compiler: str = "") -> Path:
    """Compile a program of ``model.c`` and a file that has a main function, and return it."""
    for name, text in files.items():
        (folder / name).write_text(text)
    out = folder / "program"
    command = [compiler or COMPILERS[0], "-O1", *FLAGS, *flags, "-o", str(out), "model.c", main, "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def run_tests(folder: Path, files: Mapping[str, str], *flags: str, compiler: str = "") -> str:
    """Compile and run a program's own tests, which must pass, and return what they print."""
    program = build(folder, files, "test_model.c", *flags, compiler=compiler)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_on(
    folder: Path, files: Mapping[str, str], inputs: npt.NDArray[np.generic], dtype: str
) -> npt.NDArray[np.generic]:
    """Return the outputs ``(inputs, outputs)`` of a program for any inputs, which have its C type."""
    program = build(folder, {**files, "filter.c": FILTER}, "filter.c", "-O2")
    done = subprocess.run([program], input=inputs.tobytes(), capture_output=True, check=True)
    return np.frombuffer(done.stdout, dtype).reshape(len(inputs), -1)
