"""TensorFlow Lite models run by LiteRT, in another process."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dcformat_interop.refusals import UnfitError

Array = npt.NDArray[Any]


class LiteRT(Protocol):
    """Runs a model, as `run_litert` does."""

    def __call__(self, path: str, data: bytes, inputs: Sequence[Array], other_kernels: bool = False) -> list[Array]:
        """Return the outputs of all calls."""


_WORKER = Path(__file__).with_name("litert_worker.py")


def litert_version() -> str | None:
    """Return the version of the LiteRT that is installed, or None if there is none."""
    try:
        return version("ai-edge-litert")
    except PackageNotFoundError:
        return None


def run_litert(path: str, data: bytes, inputs: Sequence[Array], other_kernels: bool = False) -> list[Array]:
    """Run a model once for each element of its inputs.

    Parameters
    ----------
    path : str
        The file, for errors.
    data : bytes
        Its content.
    inputs : sequence of ndarray
        For each input, the arrays of all calls, along a new first axis.
    other_kernels : bool
        Run other kernels than LiteRT does by default.

    Returns
    -------
    list of ndarray
        For each output, the arrays of all calls.

    Raises
    ------
    UnfitError
        LiteRT does not run the model.
    """
    stream = io.BytesIO()
    arrays: dict[str, Any] = {f"input.{number}": array for number, array in enumerate(inputs)}
    np.savez(stream, model=np.frombuffer(data, np.uint8), **arrays)
    command = [sys.executable, str(_WORKER), *(["other"] if other_kernels else [])]
    done = subprocess.run(command, input=stream.getvalue(), capture_output=True, check=False)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        found = f"signal {-done.returncode}" if done.returncode < 0 else lines[-1] if lines else "an error"
        raise UnfitError(path, f"a model that LiteRT {litert_version()} runs", found)
    results = np.load(io.BytesIO(done.stdout), allow_pickle=False)
    return [results[f"output.{number}"] for number in range(len(results.files))]
