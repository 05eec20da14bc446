"""How often a packed file is right on a data set's test images, through the runtime."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dcformat.datasets import DataError, Split, find_directory, load_split

if TYPE_CHECKING:
    from dcformat_runtime import Session

#: Images a call: enough to keep the kernels busy, few enough to take no memory to speak of.
BATCH = 1000


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Images of a test set, and how many of them were classified right."""

    images: int
    correct: int

    @property
    def accuracy(self) -> float:
        """Share of the images, 0 to 1."""
        return self.correct / self.images

    @property
    def error_percent(self) -> float:
        """Images that were wrong, in percent."""
        return 100 * (self.images - self.correct) / self.images


def evaluate(session: Session, data: Path | str | None) -> Evaluation:
    """Classify the test images of `data` (see `dcformat.datasets.load_split` for where it is looked for).

    Raises
    ------
    DataError
        No data set, or images or labels that do not fit the network.
    """
    split = load_split("test", data)
    _check(split, session, data)
    correct = 0
    for start in range(0, len(split.labels), BATCH):
        images = split.images[start : start + BATCH].reshape(-1, *session.input_shape)
        correct += int((predict(session, images) == split.labels[start : start + BATCH]).sum())
    return Evaluation(len(split.labels), correct)


def predict(session: Session, batch: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the class of each input."""
    return classes(session(batch))


def classes(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return the index of each row's largest output, the first of equals."""
    return np.asarray(logits.reshape(len(logits), -1).argmax(axis=1), np.int64)


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
