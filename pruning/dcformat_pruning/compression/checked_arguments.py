"""Checks a user's arguments of a compression before anything trains: the module, its data, its metric, a teacher."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dcformat.datasets import DataError
from dcformat_pruning.compression.packed_module import ExampleCall
from dcformat_pruning.compression.snapshots import Snapshot
from dcformat_pruning.data import Augmentation
from dcformat_pruning.export.example_inputs import BatchAxis
from dcformat_pruning.export.preparation import copied
from dcformat_pruning.feeds import Feed, feed_of
from dcformat_pruning.masks import PruningError
from dcformat_pruning.objectives import Task, fitting, recorded, score
from dcformat_pruning.training import memory_format

Metric = Callable[[nn.Module], float]


def device_of(module: nn.Module) -> torch.device:
    """Return the device of the module; raise a `PruningError` if it has no weights."""
    parameter = next(module.parameters(), None)
    if parameter is None:
        raise PruningError(f"{type(module).__name__}: expected a module with weights, found none")
    return parameter.device


def example_call(module: nn.Module, feed: Feed, task: Task, batch_axis: BatchAxis) -> ExampleCall:
    """Return the arguments with which the task calls the module.

    Raises
    ------
    DataError
        The task does not call the module or does not return a loss, or the batch does not fit the module.
    """
    batch = next(iter(feed.batches(2, torch.Generator().manual_seed(0), Augmentation())))
    module.eval()
    with torch.no_grad(), torch.random.fork_rng([]), recorded(module) as calls, fitting("train"):
        loss = task.loss(module, batch)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise DataError(f"step: expected a loss that is a scalar tensor, found {found}")
    if not calls:
        raise DataError("step: expected a call of the module that is compressed, found none")
    args, kwargs, _ = calls[0]
    return ExampleCall(args, kwargs, batch_axis)


def frozen(teacher: nn.Module, device: torch.device) -> nn.Module:
    """Return a frozen copy of a network that teaches, on the device and in the memory layout in which it is fastest."""
    own = copied(teacher).to(device).eval().requires_grad_(False)
    return own.to(memory_format=memory_format(own))  # type: ignore[call-overload, no-any-return]


def check_teacher(teacher: nn.Module, module: nn.Module, call: ExampleCall) -> None:
    """Raise a `DataError` unless the teacher can be called as the module is, and its outputs have the same shapes."""
    with torch.no_grad(), torch.random.fork_rng([]):
        with fitting("teacher", "the network's inputs to fit it"):
            found = _shapes(teacher(*call.args, **call.kwargs))
        wanted = _shapes(module(*call.args, **call.kwargs))
    if found != wanted:
        raise DataError(f"teacher: expected outputs of the network's shapes, {wanted}, found {found}")


def _shapes(outputs: Any) -> Any:
    return pytree.tree_map(lambda leaf: tuple(leaf.shape) if isinstance(leaf, Tensor) else leaf, outputs)


def metric_of(validate: Any, device: torch.device, name: str) -> Metric:
    """Return the metric that a user's function or data stand for; errors call it `name`."""
    measure: Metric
    if callable(validate):
        measure = validate
    else:
        feed = feed_of(validate, device, name)

        def measure(module: nn.Module) -> float:
            with fitting(name):
                return score(module, feed)

    @torch.no_grad()
    def checked(module: nn.Module) -> float:
        module.eval()
        found = measure(module)
        try:
            value = float(found)
        except (TypeError, ValueError):
            raise DataError(f"{name}: expected a number, found {type(found).__name__}") from None
        if not math.isfinite(value):
            raise DataError(f"{name}: expected a finite number, found {value}")
        return value

    return checked


def span_above_blank(module: nn.Module, dense: float, validate: Metric) -> float:
    """Return by how much the dense network is better than a network whose weights are all zero.

    Raises
    ------
    DataError
        It is not better: the metric does not depend on the weights, or the network has learned nothing.
    """
    before = Snapshot(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    try:
        blank = validate(module)
    except DataError:  # Such a network may have no metric at all.
        blank = -math.inf
    finally:
        before.restore()
    if dense <= blank:
        raise DataError(
            f"validate: expected the network to be better than one whose weights are all zero, found {dense:.6g} and "
            f"{blank:.6g}; train the network first, or correct the metric"
        )
    return dense - blank if math.isfinite(blank) else abs(dense)
