"""Helpers for the tests of the command and of other packages: new processes, small models, data sets, refusals."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from click.testing import Result

from dcformat.architectures import ARCHITECTURES

Invoke = Callable[..., Result]
#: `pack` in one mode, which takes a fraction of the time of all modes. test_modes.py tests the choice.
PACK = ("pack", "--mode", "fast")
State = dict[str, npt.NDArray[Any]]


def command(*args: object) -> list[str]:
    """Return the command line for a new process that runs the code under test."""
    return [sys.executable, "-c", "from dcformat_cli.entry import main; main()", *map(str, args)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "error"}


def spawn(*args: object, python: bool = False, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the command, or a Python program if `python` is set, in a new process, and wait for its end."""
    options.setdefault("stdout", subprocess.PIPE)
    arguments = [sys.executable, "-c", str(args[0])] if python else command(*args)
    return subprocess.run(arguments, stderr=subprocess.PIPE, env=environment(), check=False, **options)


def read_terminal(master: int) -> bytes:
    """Return everything written to a terminal until its other end is closed, then close this end."""
    shown = b""
    try:
        while part := os.read(master, 65536):
            shown += part
    except OSError:  # on Linux, the other end was closed
        pass
    os.close(master)
    return shown


def refused(result: Result, *parts: object, code: int = 1) -> str:
    """Assert that a command failed with one line on stderr that contains all `parts`, and return the line."""
    lines = result.stderr.splitlines()
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert [line.startswith("dcformat") for line in lines].count(True) == 1, result.stderr
    assert not any(line.startswith("Traceback") for line in lines), result.stderr
    for part in parts:
        assert str(part) in lines[-1]
    return lines[-1]


def lenet_300_100(seed: int = 0) -> State:
    """Return a pruned LeNet-300-100 with 16 shared values in each layer, as `NAME.weight` and `NAME.bias`."""
    random = np.random.default_rng(seed)
    state = {}
    for name, shape in ARCHITECTURES["lenet-300-100"].shapes.items():
        if name.endswith(".bias"):
            state[name] = random.normal(0, 0.1, shape).astype(np.float32)
            continue
        codebook = random.normal(0, 0.2, 16).astype(np.float32)
        state[name] = np.where(random.random(shape) < 0.05, codebook[random.integers(0, 16, shape)], np.float32(0))
    return state


def save_npz(path: Path, arrays: Mapping[str, npt.NDArray[Any]], *, compressed: bool = False) -> None:
    """Call `numpy.savez` or `numpy.savez_compressed` with arrays of any names, which the type hints of both forbid."""
    save: Callable[..., None] = np.savez_compressed if compressed else np.savez
    save(path, **arrays)


def write_idx(directory: Path, part: str, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> None:
    for kind, array in (("images", images), ("labels", labels)):
        header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
        with gzip.open(directory / f"{part}-{kind}-idx{array.ndim}-ubyte.gz", "wb", compresslevel=1) as file:
            file.write(header + array.tobytes())


def blobs(count: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return noisy images of ten classes, easy to learn: the place of a bright square gives the class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 10, count).astype(np.uint8)
    images = random.integers(0, 40, (count, 28, 28)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 4)
        image[9 * row : 9 * row + 7, 7 * column : 7 * column + 6] = 220
    return images, labels
