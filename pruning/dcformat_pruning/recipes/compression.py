"""`compress`: train, prune, share and fine-tune a network in one call.

Each stage of the recipe is saved when it is done. A run that was interrupted continues from its last complete stage,
and ends with the same result as a run without interruption.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

import dcformat
from dcformat.codecs import Mode
from dcformat.model import Model
from dcformat_pruning.data import PREPROCESSING, training_data
from dcformat_pruning.export.architecture_export import architecture_model
from dcformat_pruning.meter import Meter, Report
from dcformat_pruning.networks import build, load_weights
from dcformat_pruning.recipes.classic import CLASSIC
from dcformat_pruning.recipes.default import DEFAULT
from dcformat_pruning.recipes.recipe import Recipe, Stage, StageContext, StageReport
from dcformat_pruning.recipes.saved_stages import SavedStage, load_stage, save_stage
from dcformat_pruning.recipes.smallest import EXTREME, RECORD
from dcformat_pruning.state_dicts import load_checkpoint
from dcformat_pruning.training import evaluate, resolve_device

#: Name of a recipe to architecture to recipe.
RECIPES: Mapping[str, Mapping[str, Recipe]] = {
    "classic": CLASSIC,
    "default": DEFAULT,
    "record": RECORD,
    "extreme": EXTREME,
}


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """A compressed model, and how it was made.

    Attributes
    ----------
    model : dcformat.Model
    module : nn.Module
        The same weights in PyTorch, in eval mode on the run's device.
    mode : {'fast', 'small', 'tiny'}
        The mode to write the model in.
    stages : tuple of StageReport
        A report for each stage, in order.
    """

    model: Model
    module: nn.Module
    mode: Mode
    stages: tuple[StageReport, ...]


def compress(
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
        Called with a `Step` after each batch, and while images are prepared.
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
    context = StageContext(training_data(data, target), seed)
    context.epoch_scale = 1.0 if epochs is None else epochs / recipe_for(architecture, recipe).epochs
    if progress is not None:
        context.meter = _meter(progress, chosen, context)
    saved = _SavedRun.of(resume_dir, f"{architecture} {recipe} seed={seed} epochs={epochs}", checkpoint)
    reports = [_run_stage(stage, n, module, context, saved) for n, stage in enumerate(chosen.stages)]
    metadata = {"recipe": recipe, "seed": str(seed), **chosen.notes}
    model = _finished(chosen, architecture_model(module, architecture, PREPROCESSING, metadata), module, context)
    return Result(model, module.eval(), chosen.mode, tuple(reports))


@dataclass(frozen=True, slots=True)
class _SavedRun:
    """The folder in which a run's stages are saved (None: nowhere), and the key that identifies the run.

    The key tells runs apart, because a stage that another run saved must not be continued.
    """

    folder: Path | None
    key: str

    @classmethod
    def of(cls, folder: Path | str | None, settings: str, checkpoint: Path | str | None) -> _SavedRun:
        content = zlib.crc32(Path(checkpoint).read_bytes()) if checkpoint is not None else 0
        versions = f"torch={torch.__version__} dcformat={dcformat.__version__}"
        return cls(None if folder is None else Path(folder), f"{settings} checkpoint={content:08x} {versions}")


def _finished(recipe: Recipe, model: Model, module: nn.Module, context: StageContext) -> Model:
    """Return the model as the recipe finishes it, and give the module the same weights."""
    if recipe.finish is None:
        return model
    if context.meter is not None:
        context.meter.begin(len(recipe.stages))
    model = recipe.finish(model)
    load_weights(module, {name: torch.from_numpy(tensor.to_dense()) for name, tensor in model.tensors.items()})
    return model


def _meter(progress: Report, recipe: Recipe, context: StageContext) -> Meter:
    """Return a meter for the stages, with their estimated work in epochs of LeNet-300-100."""
    work = []
    for stage in recipe.stages:
        cost = recipe.cost if stage.cost is None else stage.cost
        work.append((stage.name, cost * context.epochs(stage.epochs) if stage.epochs else 0.0))
    return Meter(progress, [*work, ("order units", 1.0)] if recipe.finish else work)


def _run_stage(stage: Stage, number: int, module: nn.Sequential, context: StageContext, run: _SavedRun) -> StageReport:
    """Run a stage and save it, or load it if it was saved."""
    saved = load_stage(run.folder, number, stage.name, run.key) if run.folder is not None else None
    if context.meter is not None:
        context.meter.begin(number, skipped=saved is not None)
    if saved is not None:
        module.load_state_dict(saved.state)
        context.carried = dict(saved.carried)
        return StageReport(**json.loads(saved.report))
    context.stage = stage.name
    started = time.perf_counter()
    stage.run(module, context)
    module.eval()
    accuracy = evaluate(module, context.data.validation)
    report = StageReport(stage.name, accuracy, nonzero_weights(module), time.perf_counter() - started)
    if run.folder is not None:
        content = SavedStage(module.state_dict(), context.carried, json.dumps(asdict(report)))
        save_stage(run.folder, number, stage.name, run.key, content)
    return report


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


def nonzero_weights(module: nn.Module) -> int:
    """Return the number of weights (not biases) that are not zero."""
    return sum(int((p != 0).sum()) for p in module.parameters() if p.ndim > 1)
