"""Objectives: the loss of a batch, the metric of a network, and the distance between a student and its teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from dcformat.datasets import DataError
from dcformat_pruning.feeds import Batch, pair
from dcformat_pruning.masks import PruningError


@runtime_checkable
class Task(Protocol):
    """The purpose for which a network is trained."""

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of a batch, a scalar."""

    def distance(self, outputs: Any, targets: Any, batch: Batch, temperature: float) -> Tensor:
        """Return the distance of a call's outputs from those of the teacher, a scalar."""


class Classification:
    """Images with labels, or with float32 probabilities in their place.

    Parameters
    ----------
    smoothing : float
        Label smoothing.
    """

    def __init__(self, smoothing: float = 0.0) -> None:
        self._smoothing = smoothing

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the cross-entropy."""
        x, y = batch
        return functional.cross_entropy(module(x), y, label_smoothing=self._smoothing)

    def distance(self, outputs: Tensor, targets: Tensor, batch: Batch, temperature: float) -> Tensor:
        """Return the cross-entropy with the teacher's probabilities."""
        return _soft(outputs, targets, 1, temperature)


class Supervised:
    """Batches of inputs and labels.

    Integer labels are classes: the loss is the cross-entropy. Float labels have the shape of the outputs, and the loss
    is the mean squared error. Several outputs have labels in the same order, and their losses are added.
    """

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of a batch; raise a `DataError` for one that does not fit the network."""
        inputs, labels = pair(batch, "train")
        with fitting("train"):
            return self.loss_of(run(module, inputs), labels)

    def loss_of(self, outputs: Any, labels: Any) -> Tensor:
        """Return the loss of a call's outputs."""
        losses = []
        for output, label in paired(outputs, labels):
            if label.is_floating_point():
                losses.append(functional.mse_loss(output, label))
            else:
                losses.append(functional.cross_entropy(output.movedim(class_axis(output, label), 1), label.long()))
        return torch.stack(losses).sum()

    def distance(self, outputs: Any, targets: Any, batch: Batch, temperature: float) -> Tensor:
        """Return the cross-entropy with the teacher's probabilities; for float labels, the squared error."""
        wanted = pytree.tree_leaves(targets)
        parts = []
        for (output, label), target in zip(paired(outputs, batch[1]), wanted, strict=True):
            if label.is_floating_point():
                parts.append(functional.mse_loss(output, target))
            else:
                parts.append(_soft(output, target, class_axis(output, label), temperature))
        return torch.stack(parts).sum()


@dataclass(frozen=True, slots=True)
class CustomStep:
    """A user's own loss.

    Attributes
    ----------
    step : callable
        Takes a batch, calls the module that is compressed, and returns the loss, a scalar.
    """

    step: Callable[[Batch], Tensor]

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the step's loss."""
        return self.step(batch)

    def distance(self, outputs: Any, targets: Any, batch: Batch, temperature: float) -> Tensor:
        """Return the squared error of all outputs as a share of the mean squares of the teacher's."""
        parts = [
            functional.mse_loss(output, target) / target.square().mean().clamp_min(torch.finfo(target.dtype).tiny)
            for output, target in zip(pytree.tree_leaves(outputs), pytree.tree_leaves(targets), strict=True)
            if isinstance(target, Tensor) and target.is_floating_point()
        ]
        return torch.stack(parts).sum()


@contextmanager
def fitting(name: str, expected: str = "batches that fit the network") -> Iterator[None]:
    """Turn PyTorch's errors for a batch that does not fit a module into a `DataError` in one line."""
    try:
        with memory_errors(name):
            yield
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError) as error:
        text = str(error).strip().partition("\n")[0]
        raise DataError(f"{name}: expected {expected}, found {type(error).__name__} for one: {text}") from error


@contextmanager
def memory_errors(name: str) -> Iterator[None]:
    """Raise PyTorch's errors for lack of memory as a `MemoryError` that says what to do."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise MemoryError(f"{name}; take smaller batches") from error
        raise


def run(module: nn.Module, inputs: Any) -> Any:
    """Call a module: with the entries of a dict by name, with those of a tuple or list by position."""
    if isinstance(inputs, Mapping):
        return module(**inputs)
    return module(*inputs) if isinstance(inputs, tuple | list) else module(inputs)


def paired(outputs: Any, labels: Any) -> list[tuple[Tensor, Tensor]]:
    """Return each output with its labels.

    Raises
    ------
    DataError
        The numbers of outputs and labels differ, or shapes do not fit.
    """
    found, wanted = pytree.tree_leaves(outputs), pytree.tree_leaves(labels)
    if len(found) != len(wanted):
        raise DataError(
            f"labels: expected one for each of {len(found)} outputs, found {len(wanted)}; "
            f"give a step of your own for another loss"
        )
    for output, label in zip(found, wanted, strict=True):
        if label.is_floating_point() and output.shape != label.shape:
            raise DataError(f"labels: expected shape {tuple(output.shape)}, found {tuple(label.shape)}")
    return list(zip(found, wanted, strict=True))


def class_axis(output: Tensor, label: Tensor) -> int:
    """Return the dimension of the classes: 1, as in PyTorch, or the last one of a sequence's logits.

    Raises
    ------
    DataError
        The shapes do not fit.
    """
    shape, wanted = tuple(output.shape), tuple(label.shape)
    if len(shape) == len(wanted) + 1:
        if shape[:1] + shape[2:] == wanted:
            return 1
        if shape[:-1] == wanted:
            return len(shape) - 1
    raise DataError(f"labels: expected classes of shape (batch, ...) for outputs of shape {shape}, found {wanted}")


def _soft(output: Tensor, target: Tensor, axis: int, temperature: float) -> Tensor:
    """Return the cross-entropy with the softened probabilities of the teacher (Hinton et al. 2015, section 2)."""
    probabilities = functional.softmax(target.movedim(axis, 1) / temperature, dim=1)
    return functional.cross_entropy(output.movedim(axis, 1) / temperature, probabilities) * temperature**2


@contextmanager
def recorded(module: nn.Module) -> Iterator[list[tuple[tuple[Any, ...], dict[str, Any], Any]]]:
    """Yield a list to which each call of the module in the block adds its arguments and its outputs."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        calls.append((args, kwargs, output))

    handle = module.register_forward_hook(hook, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def taught_loss(
    module: nn.Module, batch: Batch, task: Task, teacher: nn.Module, share: float, temperature: float
) -> Tensor:
    """Return the task's loss mixed with the distance to the teacher, which takes `share` of it.

    Raises
    ------
    PruningError
        The task's step did not call the module.
    """
    with recorded(module) as calls:
        loss = task.loss(module, batch)
    if not calls:
        raise PruningError("step: expected a call of the module, found none; train without distillation")
    parts = []
    for args, kwargs, outputs in calls:
        with torch.no_grad():
            targets = teacher(*args, **kwargs)
        parts.append(task.distance(outputs, targets, batch, temperature))
    return (1 - share) * loss + share * torch.stack(parts).mean()


@torch.no_grad()
def score(module: nn.Module, batches: Iterable[Batch]) -> float:
    """Return the accuracy on batches with integer labels, 0 to 1, or the share of explained variance for float labels.

    Labels of -100, which the cross-entropy ignores, are left out. The shares of several outputs are averaged.

    Raises
    ------
    DataError
        A batch is not a pair, its labels do not fit the outputs, or there is no label.
    """
    tallies: dict[int, list[Tensor]] = {}
    for batch in batches:
        inputs, labels = pair(batch, "validate")
        for number, (output, label) in enumerate(paired(run(module, inputs), labels)):
            tally = _explained(output, label) if label.is_floating_point() else _right(output, label)
            before = tallies.get(number)
            tallies[number] = tally if before is None else [a + b for a, b in zip(before, tally, strict=True)]
    shares = []
    for tally in tallies.values():
        if len(tally) == 2:
            right, count = (float(part) for part in tally)
            shares.append(right / count if count else 0.0)
        else:
            error, count, total, square = (float(part) for part in tally)
            spread = square - total * total / count
            shares.append(1 - error / spread if spread > 0 else 0.0)
    if not shares:
        raise DataError("validate: expected at least one batch with labels, found none")
    return sum(shares) / len(shares)


def _right(output: Tensor, label: Tensor) -> list[Tensor]:
    """Return the number of samples whose largest output is the label's, and the number of labels."""
    counted = label != -100
    right = output.argmax(class_axis(output, label)) == label
    return [(right & counted).sum().double(), counted.sum().double()]


def _explained(output: Tensor, label: Tensor) -> list[Tensor]:
    """Return the squared error, and the number, sum and sum of squares of the labels."""
    wanted = label.double()
    count = torch.tensor(float(label.numel()), dtype=torch.float64)
    return [(output.double() - wanted).square().sum(), count, wanted.sum(), wanted.square().sum()]
