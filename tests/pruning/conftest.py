"""A data set of a few hundred images that a small network learns in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.support import write_idx

# Networks this small gain nothing from threads, which take the processor's time even while they wait.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """IDX files with 28 x 28 images of ten classes: the position of a bright block gives the class."""
    folder = tmp_path_factory.mktemp("digits")
    rng = np.random.default_rng(0)
    for part, count in (("train", 640), ("t10k", 100)):
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        images = rng.integers(0, 60, (count, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            row, column = divmod(int(label), 4)
            image[8 * row + 2 : 8 * row + 8, 6 * column + 3 : 6 * column + 9] += 180
        write_idx(folder, part, images, labels)
    return folder
