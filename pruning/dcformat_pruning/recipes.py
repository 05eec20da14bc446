"""From nothing (or a checkpoint) to a compressed model in one call: `compress`.

A recipe is a list of stages (`dcformat_pruning.stages`); each is saved when done, so that a run that was interrupted
continues from its last complete stage and ends as it would have ended.
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
from dcformat.model import Model
from dcformat_pruning.checkpoints import SavedStage, load_checkpoint, load_stage, save_stage
from dcformat_pruning.classic import CLASSIC
from dcformat_pruning.data import PREPROCESSING, training_data
from dcformat_pruning.default import DEFAULT
from dcformat_pruning.export import architecture_model
from dcformat_pruning.meter import Meter, Report, Step
from dcformat_pruning.networks import build, load_weights
from dcformat_pruning.record import EXTREME, RECORD
from dcformat_pruning.stages import Context, Recipe, Stage, StageReport
from dcformat_pruning.training import evaluate, resolve_device

__all__ = ["RECIPES", "Result", "StageReport", "Step", "compress", "recipe_for"]

#: Recipe name to architecture to recipe.
RECIPES: Mapping[str, Mapping[str, Recipe]] = {
    "classic": CLASSIC,
    "default": DEFAULT,
    "record": RECORD,
    "extreme": EXTREME,
}


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """A compressed model, the module it came from, and how it got there.

    Attributes
    ----------
    model : dcformat.Model
    module : nn.Module
        The same weights in PyTorch, in eval mode on the device.
    mode : {'fast', 'small', 'tiny'}
        The writer's mode that the recipe is meant for.
    stages : tuple of StageReport
    """

    model: Model
    module: nn.Module
    mode: str
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
    """Train, prune, retrain, share and fine-tune a network; choose on the validation images only.

    Parameters
    ----------
    architecture : {'lenet-300-100', 'lenet-5'}
    recipe : {'classic', 'default', 'record', 'extreme'}
        The last for lenet-300-100 only.
    seed : int
        Weights, order of images, augmentation; the result repeats bit for bit on the CPU with as many
        threads.
    device : {'auto', 'cpu', 'cuda'}
    epochs : int, optional
        Training epochs of all stages together; stages keep their shares, each at least one.
    checkpoint : path, optional
        A state_dict (.pt, weights only, or .safetensors) to start from instead of training the dense network.
    resume_dir : path, optional
        Where stages are saved, and continued from if they are there already.
    progress : callable, optional
        Called with a `Step` after each batch, and while images are prepared.
    data : path, optional
        A directory with IDX files; see `dcformat.datasets.load_split`.

    Raises
    ------
    ValueError
        An unknown architecture, recipe or device; a checkpoint that does not fit.
    DivergenceError
        Training failed.
    """
    chosen = recipe_for(architecture, recipe)
    if epochs is not None and epochs < 1:
        raise ValueError(f"epochs: expected at least 1, found {epochs}")
    target = resolve_device(device)
    context = Context(training_data(data, target), seed)
    context.epoch_scale = 1.0 if epochs is None else epochs / chosen.epochs
    module = build(architecture, seed).to(target)
    stages = list(chosen.stages)
    if checkpoint is not None:
        load_weights(module, load_checkpoint(checkpoint))
        stages[0] = replace(stages[0], run=lambda module, context: None, epochs=0)
    if progress is not None:
        work = [(stage.name, _work(stage, chosen, context)) for stage in stages]
        context.meter = Meter(progress, [*work, ("order units", 1.0)] if chosen.finish else work)
    folder = Path(resume_dir) if resume_dir is not None else None
    key = _run_key(architecture, recipe, seed, epochs, checkpoint)
    reports = [_run_stage(stage, n, module, context, folder, key) for n, stage in enumerate(stages)]
    metadata = {"recipe": recipe, "seed": str(seed), **chosen.notes}
    model = architecture_model(module, architecture, PREPROCESSING, metadata)
    if chosen.finish is not None:
        if context.meter is not None:
            context.meter.begin(len(stages))
        model = chosen.finish(model)
        dense = {name: torch.from_numpy(tensor.to_dense()) for name, tensor in model.tensors.items()}
        load_weights(module, dense)
    return Result(model, module.eval(), chosen.mode, tuple(reports))


def _work(stage: Stage, recipe: Recipe, context: Context) -> float:
    """Estimate how long a stage trains, in epochs of LeNet-300-100."""
    cost = recipe.cost if stage.cost is None else stage.cost
    return cost * context.epochs(stage.epochs) if stage.epochs else 0.0


def _run_stage(
    stage: Stage, number: int, module: nn.Sequential, context: Context, folder: Path | None, key: str
) -> StageReport:
    """Run a stage and save it, or take it from where it was saved."""
    saved = load_stage(folder, number, stage.name, key) if folder is not None else None
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
    if folder is not None:
        content = SavedStage(module.state_dict(), context.carried, json.dumps(asdict(report)))
        save_stage(folder, number, stage.name, key, content)
    return report


def recipe_for(architecture: str, recipe: str) -> Recipe:
    """Return the stages of a recipe.

    Raises
    ------
    ValueError
        No such architecture or recipe.
    """
    if recipe not in RECIPES:
        raise ValueError(f"recipe: expected one of {', '.join(RECIPES)}, found {recipe!r}")
    if architecture not in RECIPES[recipe]:
        expected = ", ".join(RECIPES[recipe])
        raise ValueError(f"architecture: expected one of {expected}, found {architecture!r}")
    return RECIPES[recipe][architecture]


def nonzero_weights(module: nn.Module) -> int:
    """Count the weights (biases excepted) that are not zero."""
    return sum(int((p != 0).sum()) for p in module.parameters() if p.ndim > 1)


def _run_key(architecture: str, recipe: str, seed: int, epochs: int | None, checkpoint: Path | str | None) -> str:
    """Tell runs apart: a stage saved by another one must not be continued."""
    content = zlib.crc32(Path(checkpoint).read_bytes()) if checkpoint is not None else 0
    run = f"{architecture} {recipe} seed={seed} epochs={epochs} checkpoint={content:08x}"
    return f"{run} torch={torch.__version__} dcformat={dcformat.__version__}"
