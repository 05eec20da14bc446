"""`compress_architecture`: train, prune, share and fine-tune one of the LeNets by a recipe.

The recipe `classic` has stages of its own. The others train a dense network, and a teacher for the smallest files, and
leave the rest to `dcformat_pruning.compress`. Each stage is saved when it is done. A run that was interrupted continues
from its last complete stage, and ends with the same result as a run without interruption.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from dcformat.transforms import reorder_units
from dcformat_pruning.compression import Goal, RunControl, compress
from dcformat_pruning.data import PREPROCESSING, training_data
from dcformat_pruning.export.architecture_export import architecture_model
from dcformat_pruning.lenets import build, load_weights
from dcformat_pruning.masks import all_weights
from dcformat_pruning.meter import Meter, Report, StageProgress
from dcformat_pruning.objectives import Classification
from dcformat_pruning.recipes.classic import CLASSIC
from dcformat_pruning.recipes.default import DEFAULT
from dcformat_pruning.recipes.recipe import Recipe, RecipeGoal
from dcformat_pruning.recipes.smallest import EXTREME, RECORD
from dcformat_pruning.shrinking import keep_best_units
from dcformat_pruning.state_dicts import load_checkpoint
from dcformat_pruning.training import evaluate, resolve_device
from dcformat_pruning.training_stages.running import Run
from dcformat_pruning.training_stages.stage import Result, StageContext, StageReport

#: Name of a recipe to architecture to recipe.
RECIPES: Mapping[str, Mapping[str, Recipe]] = {
    "classic": CLASSIC,
    "default": DEFAULT,
    "record": RECORD,
    "extreme": EXTREME,
}


#: The stages of `compress`, if it tries one network: the dense network, and those of the trial.
_STAGES = ("dense", "prune", "share", "settle", "pack")


def compress_architecture(
    architecture: str,
    recipe: str = "default",
    *,
    seed: int = 0,
    device: str = "auto",
    epochs: int | None = None,
    checkpoint: Path | str | None = None,
    resume_dir: Path | str | None = None,
    progress: Report | None = None,
    data: Path | str | None = None,
) -> Result:
    """Train, prune, share and fine-tune a network.

    The test images are not read; all settings were chosen on the validation images.

    Parameters
    ----------
    architecture : {'lenet-300-100', 'lenet-5'}
    recipe : {'classic', 'default', 'record', 'extreme'}
        'extreme' exists for lenet-300-100 only.
    seed : int
        Seeds the initial weights, the order of images and the augmentation. The result repeats bit for bit on the CPU
        with the same number of threads.
    device : {'auto', 'cpu', 'cuda'}
    epochs : int, optional
        Training epochs of all stages together; each stage keeps its share, but trains for at least one epoch. The
        default is the recipe's number.
    checkpoint : path, optional
        A state_dict (.pt, loaded with ``weights_only``, or .safetensors) to start from instead of training the dense
        network.
    resume_dir : path, optional
        The directory in which stages are saved. Stages that it already holds are not run again.
    progress : callable, optional
        Called with a `StageProgress` after each batch, and while images are prepared.
    data : path, optional
        A directory with IDX files; see `dcformat.datasets.load_split`.

    Raises
    ------
    ValueError
        The architecture, recipe or device is unknown, or the checkpoint does not fit the architecture.
    DataError
        The images cannot be read.
    DivergenceError
        The training diverged.
    """
    chosen = recipe_for(architecture, recipe)
    if epochs is not None and epochs < 1:
        raise ValueError(f"epochs: expected at least 1, found {epochs}")
    target = resolve_device(device)
    module = build(architecture, seed).to(target)
    if checkpoint is not None:
        load_weights(module, load_checkpoint(checkpoint))
        trained = replace(chosen.stages[0], run=lambda module, context: None, epochs=0)
        chosen = replace(chosen, stages=(trained, *chosen.stages[1:]))
    images = training_data(data, target)
    context = StageContext(images.train, lambda network: evaluate(network, images.validation), seed, target)
    context.epoch_scale = 1.0 if epochs is None else epochs / recipe_for(architecture, recipe).epochs
    if progress is not None:
        context.meter = _meter(progress, chosen, context)
    content = zlib.crc32(Path(checkpoint).read_bytes()) if checkpoint is not None else 0
    settings = f"{architecture} {recipe} seed={seed} epochs={epochs} checkpoint={content:08x}"
    run = Run(module, context, resume_dir, settings)
    for stage in chosen.stages:
        run.stage(stage)
    reports = tuple(run.reports)
    metadata = {"recipe": recipe, "seed": str(seed)}
    if chosen.goal is not None:
        reports += _compressed(chosen.goal, module, context, resume_dir, len(chosen.stages))
    model = architecture_model(module, architecture, PREPROCESSING, metadata)
    if chosen.goal is not None:
        if context.meter is not None:
            context.meter.begin(len(chosen.stages) + len(_STAGES))
        model = reorder_units(model, "fast")
        load_weights(module, {name: torch.from_numpy(tensor.to_dense()) for name, tensor in model.tensors.items()})
    return Result(model, module.eval(), chosen.mode, reports)


def _compressed(
    goal: RecipeGoal, module: nn.Sequential, context: StageContext, folder: Path | str | None, before: int
) -> tuple[StageReport, ...]:
    """Compress the dense network by its best units, and return the reports of the stages that train it."""
    keep_best_units(module, goal.units)
    prune, share, settle = (context.epochs(plan.epochs) for plan in goal.settings.plans())
    made = compress(
        module,
        train=goal.source(context),
        validate=context.validate,
        goal=Goal(density=goal.keep / sum(all_weights(module).alive.values())),
        settings=replace(goal.settings, epochs=(prune, share, settle), seed=context.seed),
        step=Classification(),
        control=RunControl(folder, None if context.meter is None else _continued(context.meter, before), before=before),
    )
    return tuple(report for report in made.stages if report.stage in _STAGES[1:-1])


def _continued(meter: Meter, before: int) -> Report:
    """Return a callback that reports the stages of `compress` as those that follow the recipe's own."""
    entered = set[int]()

    def report(step: StageProgress) -> None:
        number = before + step.number - 1
        if number not in entered:
            entered.add(number)
            meter.begin(number)
        if step.total:
            meter.count(step.unit, step.done, step.total, step.figures)

    return report


def _meter(progress: Report, recipe: Recipe, context: StageContext) -> Meter:
    """Return a meter for the stages, with their estimated work in epochs of LeNet-300-100."""
    work = []
    for stage in recipe.stages:
        cost = recipe.cost if stage.cost is None else stage.cost
        work.append((stage.name, cost * context.epochs(stage.epochs) if stage.epochs else 0.0))
    if recipe.goal is not None:
        epochs = [0, *(context.epochs(plan.epochs) for plan in recipe.goal.settings.plans()), 0]
        work += [(name, recipe.cost * count) for name, count in zip(_STAGES, epochs, strict=True)]
        work.append(("order units", 1.0))
    return Meter(progress, work)


def recipe_for(architecture: str, recipe: str) -> Recipe:
    """Return a recipe by its name.

    Raises
    ------
    ValueError
        There is no such recipe, or it does not exist for this architecture.
    """
    if recipe not in RECIPES:
        raise ValueError(f"recipe: expected one of {', '.join(RECIPES)}, found {recipe!r}")
    if architecture not in RECIPES[recipe]:
        expected = ", ".join(RECIPES[recipe])
        raise ValueError(f"architecture: expected one of {expected}, found {architecture!r}")
    return RECIPES[recipe][architecture]
