"""A data set of a few hundred images that a small network learns in seconds."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest


def _write(path: Path, array: np.ndarray) -> None:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header + array.tobytes())


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten kinds of 28 x 28 images in IDX files: a bright block whose place is the class, and noise."""
    folder = tmp_path_factory.mktemp("digits")
    rng = np.random.default_rng(0)
    for part, count in (("train", 640), ("t10k", 100)):
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        images = rng.integers(0, 60, (count, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            row, column = divmod(int(label), 4)
            image[8 * row + 2 : 8 * row + 8, 6 * column + 3 : 6 * column + 9] += 180
        _write(folder / f"{part}-images-idx3-ubyte.gz", images)
        _write(folder / f"{part}-labels-idx1-ubyte.gz", labels)
    return folder
