"""Feeds: the sources of a training's batches, such as a user's arrays or a user's loader.

`feed_of` makes a feed from a user's data. The project's own images are feeds too; see `dcformat_pruning.data`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from dcformat.datasets import DataError
from dcformat_pruning.data import Augment

#: The items of a loader: as a rule, pairs of inputs and labels. Inputs may be a tuple or a dict of tensors.
Batch = Any


@runtime_checkable
class Feed(Protocol):
    """Gives the batches of each epoch."""

    def steps(self, size: int) -> int:
        """Return the number of batches of an epoch, with batches of `size` samples if the feed makes them itself."""

    def batches(self, size: int, generator: torch.Generator, augmentation: Augment) -> Iterator[Batch]:
        """Yield the batches of one epoch in random order."""


class ArrayFeed:
    """Inputs and labels in memory, shuffled in each epoch. A smaller last batch is left out.

    Parameters
    ----------
    inputs : Tensor, ndarray, or tuple or dict of these
        Their first dimensions are the samples.
    labels : Tensor, ndarray, or tuple or dict of these
        With as many samples.
    device : torch.device
        Where batches are put.
    name : str
        What errors call the data.

    Raises
    ------
    DataError
        There are no samples, their numbers differ, a number is NaN or infinite, or an array holds no numbers.
    """

    def __init__(self, inputs: Any, labels: Any, device: torch.device, name: str) -> None:
        self._pair = _moved((inputs, labels), torch.device("cpu"), name)
        counts = {len(leaf) if leaf.ndim else 0 for leaf in _tensors(self._pair)}
        if len(counts) != 1 or counts == {0}:
            found = " and ".join(f"{count:,}" for count in sorted(counts)) or "none"
            raise DataError(f"{name}: expected as many labels as inputs, and at least one, found {found}")
        self._count, self._device, self._name = counts.pop(), device, name
        check_finite_batch(self._pair, name)

    def steps(self, size: int) -> int:
        """Return the number of batches of an epoch."""
        return max(1, self._count // size)

    def batches(self, size: int, generator: torch.Generator, augmentation: Augment) -> Iterator[Batch]:
        """Yield one shuffled epoch as pairs of inputs and labels."""
        order = torch.randperm(self._count, generator=generator)
        yield from self._parts(order, min(size, self._count))

    def __iter__(self) -> Iterator[Batch]:
        """Yield all samples in their order, in batches of at most 256."""
        yield from self._parts(torch.arange(self._count), 256, last=True)

    def _parts(self, order: Tensor, size: int, *, last: bool = False) -> Iterator[Batch]:
        for start in range(0, self._count if last else self._count - size + 1, size):
            index = order[start : start + size]
            part = pytree.tree_map(lambda leaf: leaf[index], self._pair)  # noqa: B023
            yield _moved(part, self._device, self._name)


class LoaderFeed:
    """A loader, which makes and shuffles its own batches: a DataLoader, a list of batches, or any other iterable.

    Parameters
    ----------
    loader : iterable
        Gives the batches of an epoch each time it is iterated.
    device : torch.device
        Where batches are put.
    name : str
        What errors call the loader.

    Raises
    ------
    DataError
        The loader can be iterated only once, or yields nothing.
    """

    def __init__(self, loader: Iterable[Batch], device: torch.device, name: str) -> None:
        if isinstance(loader, Iterator):
            raise DataError(f"{name}: expected a loader that can be iterated again, found an iterator; pass a list")
        self._loader, self._device, self._name = loader, device, name
        try:
            self._steps = len(loader)  # type: ignore[arg-type]
        except TypeError:
            self._steps = sum(1 for _ in loader)
        if not self._steps:
            raise DataError(f"{name}: expected at least one batch, found none")

    def steps(self, size: int) -> int:
        """Return the number of batches of an epoch; the loader alone decides on their size."""
        return self._steps

    def batches(self, size: int, generator: torch.Generator, augmentation: Augment) -> Iterator[Batch]:
        """Yield the loader's batches."""
        yield from self

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of one epoch on the device; raise a `DataError` for NaN, or if there is no batch."""
        number = -1
        for number, batch in enumerate(self._loader):
            moved = _moved(batch, self._device, self._name)
            check_finite_batch(moved, f"{self._name}, batch {number + 1}")
            yield moved
            if number + 1 == self._steps:
                return
        if number < 0:
            raise DataError(f"{self._name}: expected at least one batch, found none")


def feed_of(data: Any, device: torch.device, name: str) -> ArrayFeed | LoaderFeed:
    """Make a feed from a user's data: a loader, or a tuple of inputs and labels as arrays or tensors.

    Parameters
    ----------
    data : iterable, or tuple
    device : torch.device
        Where batches are put.
    name : str
        What errors call the data.

    Raises
    ------
    DataError
        The data is neither, or holds nothing; see `ArrayFeed` and `LoaderFeed`.
    """
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[1], Tensor | np.ndarray):
        return ArrayFeed(*data, device, name)
    if isinstance(data, Iterable) and not isinstance(data, Tensor | np.ndarray | Mapping | str):
        return LoaderFeed(data, device, name)
    raise DataError(f"{name}: expected a loader or a tuple (inputs, labels), found {type(data).__name__}")


def pair(batch: Batch, name: str) -> tuple[Any, Any]:
    """Return a batch as inputs and labels.

    Raises
    ------
    DataError
        The batch is not a pair.
    """
    if isinstance(batch, Sequence) and len(batch) == 2:
        return batch[0], batch[1]
    found = f"a sequence of {len(batch)}" if isinstance(batch, Sequence) else type(batch).__name__
    raise DataError(f"{name}: expected batches (inputs, labels), found {found}; for others, give a step of your own")


def check_finite_batch(batch: Batch, name: str) -> None:
    """Raise a `DataError` if a number of a batch is NaN or infinite."""
    for leaf in _tensors(batch):
        if leaf.is_floating_point() and not bool(torch.isfinite(leaf).all()):
            raise DataError(f"{name}: expected finite numbers, found NaN or infinity")


def _tensors(batch: Batch) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(batch) if isinstance(leaf, Tensor)]


def _moved(batch: Batch, device: torch.device, name: str) -> Batch:
    """Return a batch with tensors on `device` in place of arrays; float64 becomes float32.

    Raises
    ------
    DataError
        An array has a dtype that PyTorch lacks; the message calls the data `name`.
    """

    def move(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            try:
                leaf = torch.from_numpy(np.ascontiguousarray(leaf))
            except TypeError:
                raise DataError(f"{name}: expected arrays of numbers, found {leaf.dtype}") from None
        if not isinstance(leaf, Tensor):
            return leaf
        return leaf.to(device, torch.float32) if leaf.dtype == torch.float64 else leaf.to(device)

    return pytree.tree_map(move, batch)
