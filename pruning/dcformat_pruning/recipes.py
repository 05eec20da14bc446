"""From nothing (or a checkpoint) to a compressed model in one call: `compress`.

A recipe is a list of stages; each takes the module of the stage before, changes it, and is saved when done,
so that a run that was interrupted continues from its last complete stage and ends as it would have ended.
Masks and clusters are not saved: they are the zeros and the equal values of the weights.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from dcformat.model import Model
from dcformat_pruning.checkpoints import load_checkpoint, load_stage, save_stage
from dcformat_pruning.data import PREPROCESSING, TrainingData, training_data
from dcformat_pruning.export import architecture_model
from dcformat_pruning.networks import build, load_weights
from dcformat_pruning.training import Progress, evaluate, resolve_device


@dataclass(slots=True)
class Context:
    """What a stage may use; `seed` differs from stage to stage so that resuming changes nothing."""

    data: TrainingData
    seed: int
    stage: str
    progress: Progress | None
    epoch_scale: float = 1.0

    def epochs(self, planned: int) -> int:
        """Scale a stage's epochs to what the caller asked for; at least one."""
        return max(1, round(planned * self.epoch_scale))


#: Trains, prunes or shares in place.
StageFunction = Callable[[nn.Module, Context], None]


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a recipe: `name` is shown and keys its checkpoint; `epochs` is its share of training."""

    name: str
    run: StageFunction
    epochs: int = 0


@dataclass(frozen=True, slots=True)
class StageReport:
    """What a stage left: accuracy on the validation images (0..1), nonzero weights, seconds."""

    stage: str
    accuracy: float
    weights: int
    seconds: float


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


@dataclass(frozen=True, slots=True)
class Recipe:
    """Stages in order, and the writer's mode; the first stage makes the dense network."""

    stages: Sequence[Stage]
    mode: str
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Training epochs of all stages together."""
        return sum(stage.epochs for stage in self.stages)


def compress(
    architecture: str,
    recipe: str = "default",
    *,
    seed: int = 0,
    device: str = "auto",
    epochs: int | None = None,
    checkpoint: Path | str | None = None,
    resume_dir: Path | str | None = None,
    progress: Progress | None = None,
    data: Path | str | None = None,
) -> Result:
    """Train, prune, retrain, share and fine-tune a network; choose on the validation images only.

    Parameters
    ----------
    architecture : {'lenet-300-100', 'lenet-5'}
    recipe : {'classic', 'default', 'record'}
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
        Called with (stage, epochs done, epochs in all, figures).
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
    images = training_data(data, target)
    module = build(architecture, seed).to(target)
    stages = list(chosen.stages)
    if checkpoint is not None:
        load_weights(module, load_checkpoint(checkpoint))
        stages[0] = replace(stages[0], run=lambda module, context: None)
    scale = 1.0 if epochs is None else epochs / chosen.epochs
    key = _run_key(architecture, recipe, seed, epochs, checkpoint)
    reports: list[StageReport] = []
    for number, stage in enumerate(stages):
        folder = Path(resume_dir) if resume_dir is not None else None
        saved = load_stage(folder, number, stage.name, key) if folder is not None else None
        if saved is not None:
            module.load_state_dict(saved.state)
            reports.append(StageReport(**json.loads(saved.report)))
            continue
        context = Context(images, _stage_seed(seed, stage.name), stage.name, progress, scale)
        started = time.perf_counter()
        stage.run(module, context)
        module.eval()
        report = StageReport(
            stage.name,
            evaluate(module, images.validation),
            nonzero_weights(module),
            time.perf_counter() - started,
        )
        reports.append(report)
        if folder is not None:
            save_stage(folder, number, stage.name, key, module.state_dict(), json.dumps(_as_dict(report)))
    metadata = {"recipe": recipe, "seed": str(seed), **chosen.notes}
    model = architecture_model(module, architecture, PREPROCESSING, metadata)
    return Result(model, module.eval(), chosen.mode, tuple(reports))


def recipe_for(architecture: str, recipe: str) -> Recipe:
    """Return the stages of a recipe.

    Raises
    ------
    ValueError
        No such architecture or recipe.
    """
    from dcformat_pruning.classic import CLASSIC

    recipes: dict[str, Mapping[str, Recipe]] = {"classic": CLASSIC}
    if recipe not in recipes:
        raise ValueError(f"recipe: expected one of {', '.join(recipes)}, found {recipe!r}")
    if architecture not in recipes[recipe]:
        raise ValueError(
            f"architecture: expected one of {', '.join(recipes[recipe])}, found {architecture!r}"
        )
    return recipes[recipe][architecture]


def nonzero_weights(module: nn.Module) -> int:
    """Count the weights (biases excepted) that are not zero."""
    return sum(int((p != 0).sum()) for p in module.parameters() if p.ndim > 1)


def _as_dict(report: StageReport) -> dict[str, object]:
    return {
        "stage": report.stage,
        "accuracy": report.accuracy,
        "weights": report.weights,
        "seconds": report.seconds,
    }


def _run_key(
    architecture: str, recipe: str, seed: int, epochs: int | None, checkpoint: Path | str | None
) -> str:
    """Tell runs apart: a stage saved by another one must not be continued."""
    content = zlib.crc32(Path(checkpoint).read_bytes()) if checkpoint is not None else 0
    run = f"{architecture} {recipe} seed={seed} epochs={epochs} checkpoint={content:08x}"
    return f"{run} torch={torch.__version__}"


def _stage_seed(seed: int, stage: str) -> int:
    return (seed << 32) + zlib.crc32(stage.encode())
