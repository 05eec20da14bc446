"""Evaluates a packed file: how many test images the runtime classifies correctly with it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dcformat.datasets import DataError, Split, find_directory, load_split
from dcformat_cli.progress import counting

if TYPE_CHECKING:
    from dcformat_runtime import Session

#: Number of images in a call: enough to keep the kernels busy, but too few to need much memory.
BATCH = 1000


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The number of images in a test set, and how many of them were classified correctly."""

    images: int
    correct: int

    @property
    def accuracy(self) -> float:
        """Share of the images that were classified correctly, 0 to 1."""
        return self.correct / self.images

    @property
    def error_percent(self) -> float:
        """Percentage of images that were classified wrongly."""
        return 100 * (self.images - self.correct) / self.images


def evaluate(session: Session, data: Path | str | None) -> Evaluation:
    """Classify the test images of `data`, which `dcformat.datasets.load_split` finds.

    Raises
    ------
    DataError
        No data set was found, or its images or labels do not fit the network.
    """
    split = load_split("test", data)
    _check(split, session, data)
    correct = 0
    with counting("running") as progress:
        for start in range(0, len(split.labels), BATCH):
            progress(start, len(split.labels), "the test images")
            images = split.images[start : start + BATCH].reshape(-1, *session.input_shape)
            correct += int((predict(session, images) == split.labels[start : start + BATCH]).sum())
    return Evaluation(len(split.labels), correct)


def predict(session: Session, batch: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the class of each input."""
    return classes(session(batch))


def classes(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return the index of each row's largest output, or the first of several equal ones."""
    return np.asarray(logits.reshape(len(logits), prod(logits.shape[1:])).argmax(axis=1), np.int64)


def _check(split: Split, session: Session, data: Path | str | None) -> None:
    pixels = prod(split.images.shape[1:])
    if pixels != prod(session.input_shape):
        shape = "x".join(map(str, split.images.shape[1:]))
        raise DataError(
            f"{find_directory(data)}: expected images of {prod(session.input_shape)} values for an input of "
            f"shape {session.input_shape}, found {shape} pixels"
        )
    outputs = prod(session.output_shape)
    if split.classes > outputs:
        raise DataError(f"{find_directory(data)}: expected at most {outputs} classes, found {split.classes}")
