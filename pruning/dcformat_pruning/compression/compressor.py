"""`compress`: the smallest file of a user's network that meets a goal.

Every network that the search tries goes through the same stages, and each stage is saved when it is done. An
interrupted run continues from its last complete stage, and takes the same decisions again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dcformat_pruning.compression.checked_arguments import (
    Metric,
    check_teacher,
    device_of,
    example_call,
    frozen,
    metric_of,
    span_above_blank,
)
from dcformat_pruning.compression.compression_settings import Settings
from dcformat_pruning.compression.first_guess import first_keep
from dcformat_pruning.compression.goals import Goal, Trial, points
from dcformat_pruning.compression.hidden_units import best_units, unit_groups
from dcformat_pruning.compression.packed_module import export, packed_metric
from dcformat_pruning.compression.run_control import RunControl
from dcformat_pruning.compression.search import Search, parent
from dcformat_pruning.compression.snapshots import Snapshot
from dcformat_pruning.compression.trials import PACKING, Trials, Tried, stage_names
from dcformat_pruning.export.example_inputs import BatchAxis
from dcformat_pruning.feeds import Batch, Feed, feed_of
from dcformat_pruning.masks import PruningError, all_weights, weight_names
from dcformat_pruning.meter import Meter, Report
from dcformat_pruning.objectives import CustomStep, Supervised, Task
from dcformat_pruning.training import DivergenceError
from dcformat_pruning.training_stages.running import Run
from dcformat_pruning.training_stages.stage import Result, Stage, StageContext
from dcformat_pruning.training_stages.stage_library import train as train_stage


@dataclass(frozen=True, slots=True, eq=False)
class Compression(Result):
    """A compressed network, and the search that found it.

    Attributes
    ----------
    data : bytes
        The file.
    dense : float
        The metric of the dense network.
    metric : float
        The metric of the file.
    tested : float or None
        The metric of the file on the test data, if there are any.
    reached : bool
        Whether the file reaches the goal.
    trials : tuple of Trial
        The networks that were tried, in order.
    note : str
        One line for the user if the goal was not reached, the search ended early, or layers lost all of their weights.
        Otherwise empty.
    """

    data: bytes
    dense: float
    metric: float
    tested: float | None
    reached: bool
    trials: tuple[Trial, ...]
    note: str


def compress(
    module: nn.Module,
    *,
    train: Any,
    validate: Any,
    test: Any = None,
    goal: Goal,
    settings: Settings | None = None,
    step: Callable[[Batch], Tensor] | Task | None = None,
    teacher: nn.Module | None = None,
    batch_axis: BatchAxis = 0,
    control: RunControl | None = None,
) -> Compression:
    """Prune, share, round and pack the weights of a network while it trains, so that its file reaches a goal.

    The module is changed in place, as by any training, and ends with the weights of the file; batch norms are folded
    into the layers before them. If the compression fails, the module has the weights of the best network so far.

    Parameters
    ----------
    module : nn.Module
        A trained network that `from_module` takes, on the device on which to train.
    train : iterable, or tuple
        A DataLoader or another iterable of batches, or arrays ``(inputs, labels)``. A batch is a pair of inputs and
        labels; inputs are a tensor, or a tuple (by position) or dict (by name) of tensors. Integer labels are classes,
        and float labels are numbers to predict. A `Feed` of this package, such as `Images`, makes its own batches.
    validate : callable, iterable or tuple
        Takes the module and returns its metric, a number that is higher for better networks. With data as for `train`,
        the metric is the accuracy (integer labels, 0 to 1) or the share of explained variance (float labels, at most
        1).
    test : callable, iterable or tuple, optional
        As `validate`; read once, through the file that is returned.
    goal : Goal
        Such as ``Goal(max_drop=0.5)``, ``Goal(size=20_000)`` or ``Goal(density=0.05)``.
    settings : Settings, optional
        Epochs, learning rate, seed, metadata of the file and the like.
    step : callable, optional
        A loss of your own: takes a batch, calls the module, and returns a scalar. Batches may then be anything. A
        `Task` such as `Classification`, whose labels may be probabilities, calls the network that it is given.
    teacher : nn.Module, optional
        A better network, called as `module` is, with outputs of the same shapes. Its outputs are targets in place of
        those of the dense network; ``settings.distill`` is their share in the loss.
    batch_axis : int, None, or mapping of str to int or None
        The dimension of the inputs that is the batch; see `from_module`.
    control : RunControl, optional
        The directory of saved stages, and functions to call as the run proceeds.

    Returns
    -------
    Compression
        The best network that was tried. If none reaches the goal, it is the nearest one, and `note` says so.

    Raises
    ------
    UnsupportedModuleError
        The module cannot be exported; all operators that stand in the way are named.
    DataError
        The data are empty, hold NaN, or do not fit the module; or the metric does not depend on the weights.
    PruningError
        The goal is out of range for the network.
    DivergenceError, MemoryError
        The first network could not be trained.
    CheckpointError
        ``control.resume_dir`` holds stages of a run with other settings.
    """
    settings, control = settings or Settings(), control or RunControl()
    device = device_of(module)
    feed = train if isinstance(train, Feed) else feed_of(train, device, "train")
    task = _task(step)
    call = example_call(module, feed, task, batch_axis)
    # An operator that the format lacks should be found now, not after hours of training.
    groups = unit_groups(export(module, call), module)
    measure, in_place = metric_of(validate, device, "validate"), isinstance(task, CustomStep)
    context = StageContext(feed, measure, settings.seed, device, task, in_place)
    if teacher is not None:
        teacher = frozen(teacher, device)
        check_teacher(teacher, module, call)
    masks = all_weights(module)
    total, least = sum(masks.alive.values()), len(masks.masks)
    if not total:
        raise PruningError(
            f"{type(module).__name__}: expected weights to prune (trainable, of two or more dimensions), found none"
        )
    available = _count(best_units(module, groups, settings.units))
    _check_density(goal, total, least, available)
    several = goal.density is None
    if control.progress is not None:
        context.meter = _meter(control.progress, settings, range(1, settings.trials + 1) if several else [None])
    run = Run(module, context, control.resume_dir, f"{_identity(module, teacher)} {goal} {settings}", control.before)
    dense = run.stage(_dense_stage(settings)).metric
    span = span_above_blank(module, dense, context.validate)
    context.teacher = frozen(module, device) if teacher is None else teacher
    first = first_keep(module, goal, total, settings, context.validate, span)
    alive = best_units(module, groups, settings.units)
    trials = Trials(module, run, call, settings, groups, alive, several)
    found, note = _search(trials, Search(goal, dense, available, least, first), control.watch)
    return _finished(trials, found, goal, dense, note, None if test is None else metric_of(test, device, "test"))


def _search(trials: Trials, search: Search, watch: Callable[[Trial], None] | None) -> tuple[list[Tried], str]:
    """Try networks until the search ends; a failure after the first network ends it early, with a note."""
    begin = Snapshot(trials.module)
    found: list[Tried] = []
    known: list[Trial] = []
    try:
        while len(found) < trials.settings.trials and (keep := search.next(known)) is not None:
            before = parent(known, keep, search.goal, search.dense)
            start = begin if before is None else found[known.index(before)].pruned
            found.append(trials.attempt(len(found) + 1, keep, start))
            known.append(found[-1].trial)
            if watch is not None:
                watch(known[-1])
    except (DivergenceError, MemoryError) as error:
        if not found:
            begin.restore()
            raise
        return found, f"the search ended early: {error}"
    except BaseException:
        best = search.goal.best(known, search.dense) if known else None
        (begin if best is None else found[known.index(best)].finished).restore()
        raise
    return found, ""


def _finished(
    trials: Trials, found: Sequence[Tried], goal: Goal, dense: float, note: str, test: Metric | None
) -> Compression:
    """Return the best network, whose weights the module gets."""
    known = [tried.trial for tried in found]
    best = goal.best(known, dense)
    chosen = found[known.index(best)]
    chosen.finished.restore()
    packed = chosen.packed or trials.packed(export(trials.module, trials.call), best.number, best.metric)
    notes = [note] if note else []
    if not goal.holds(best, dense):
        nearest = f"{best.size:,} bytes, {points(dense - best.metric, dense):.2f} points below the dense network"
        notes.insert(0, f"the goal ({goal.describe()}) was not reached: the nearest network has {nearest}")
    if empty := [name for name in weight_names(trials.module) if not bool(trials.module.get_parameter(name).any())]:
        notes.append(f"pruned to nothing: {', '.join(empty)}")
    return Compression(
        model=packed.model,
        module=trials.module.eval(),
        mode=packed.mode,
        stages=tuple(trials.run.reports),
        data=packed.data,
        dense=dense,
        metric=best.metric,
        tested=None if test is None else packed_metric(packed.data, trials.module, trials.call, test),
        reached=goal.holds(best, dense),
        trials=tuple(known),
        note="; ".join(notes),
    )


def _task(step: Callable[[Batch], Tensor] | Task | None) -> Task:
    if step is None:
        return Supervised()
    return step if isinstance(step, Task) else CustomStep(step)


def _identity(module: nn.Module, teacher: nn.Module | None) -> str:
    """Return the identity of a network, before it is trained, and of the weights of its teacher."""
    shapes = repr([(name, tuple(value.shape)) for name, value in module.state_dict().items()])
    found = f"{type(module).__name__}-{zlib.crc32(shapes.encode()):08x}"
    if teacher is None:
        return found
    content = 0
    for value in teacher.state_dict().values():
        content = zlib.crc32(value.cpu().flatten().view(torch.uint8).numpy().tobytes(), content)
    return f"{found} teacher={content:08x}"


def _dense_stage(settings: Settings) -> Stage:
    """Return the stage that trains the dense network, or only measures it."""
    if settings.dense_epochs:
        return train_stage(settings.dense_plan(), name="dense")
    return Stage("dense", lambda module, context: None)


def _meter(progress: Report, settings: Settings, trials: Iterable[int | None]) -> Meter:
    """Return a meter for as many trials as there may be."""
    work = [("dense", float(settings.dense_epochs))]
    costs = [float(plan.epochs) for plan in settings.plans()] + [PACKING]
    for number in trials:
        work += list(zip(stage_names(number), costs, strict=True))
    return Meter(progress, work)


def _count(masks: Mapping[str, Tensor]) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


def _check_density(goal: Goal, total: int, least: int, available: int) -> None:
    if goal.density is None:
        return
    if round(goal.density * total) > available:
        raise PruningError(
            f"density: expected at most {available / total:.2g}, as the units that are kept have {available:,} of "
            f"{total:,} weights, found {goal.density:g}"
        )
    if round(goal.density * total) < least:
        raise PruningError(
            f"density: {goal.density:g} of {total:,} weights keeps {round(goal.density * total)}, fewer than the "
            f"{least} layers; expected at least {least / total:.2g}"
        )
