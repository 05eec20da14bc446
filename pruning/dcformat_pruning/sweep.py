"""A sweep: every combination of criterion, density, number of shared values and seed, as sizes and accuracies.

Each point prunes a trained LeNet-300-100 once, retrains it, shares its weights and packs it. Finished points are in an
Optuna study, an SQLite file, so that an interrupted sweep continues, and Optuna's own tools can read it.
"""

from __future__ import annotations

import copy
import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import torch
from torch import nn

from dcformat.codecs import Mode
from dcformat.graph import Preprocessing
from dcformat.writer import written_bytes
from dcformat_pruning.criteria import scored_layers
from dcformat_pruning.data import Images, TrainingData, training_data
from dcformat_pruning.export.architecture_export import architecture_model
from dcformat_pruning.lenets import build
from dcformat_pruning.sharing import share
from dcformat_pruning.study import CRITERIA, first_images, own_budget, prune, train_strong
from dcformat_pruning.study.pruned_networks import retrain
from dcformat_pruning.training import evaluate

ARCHITECTURE = "lenet-300-100"
_STUDY = "sweep"


class Point(NamedTuple):
    """A combination: criterion, share of weights that stay, shared values in each layer, and seed."""

    criterion: str
    density: float
    clusters: int
    seed: int


class SweepSettings(NamedTuple):
    """The settings that are the same for all points.

    Attributes
    ----------
    dense_epochs, epochs : int
        Epochs of the dense network and of retraining.
    mode : {'fast', 'small', 'tiny'}
        The mode of `dcformat.save`.
    data : str or None
        Directory of the images; None for the default.
    images : int or None
        Number of training images to use; None for all.
    """

    dense_epochs: int = 12
    epochs: int = 2
    mode: Mode = "small"
    data: str | None = None
    images: int | None = None


class Outcome(NamedTuple):
    """A point's file size in bytes, and its accuracy on the validation images, 0 to 1."""

    size: int
    accuracy: float


#: A function that yields each point of a list with its outcome, in any order.
SweepEngine = Callable[[Sequence[Point], SweepSettings, Path], Iterator[tuple[Point, Outcome]]]


def grid(
    criteria: Iterable[str], densities: Iterable[float], clusters: Iterable[int], seeds: Iterable[int]
) -> list[Point]:
    """Return every combination, each once.

    Raises
    ------
    ValueError
        A criterion is unknown, a density is not above 0 and at most 1, or fewer than 2 values are to be shared.
    """
    points = [Point(*each) for each in product(criteria, densities, clusters, seeds)]
    for point in points:
        if point.criterion not in CRITERIA:
            raise ValueError(f"criterion: expected one of {', '.join(CRITERIA)}, found {point.criterion!r}")
        if not 0 < point.density <= 1:
            raise ValueError(f"density: expected above 0 and at most 1, found {point.density}")
        if point.clusters < 2:
            raise ValueError(f"clusters: expected at least 2 shared values, found {point.clusters}")
    return list(dict.fromkeys(points))


def sweep(
    points: Sequence[Point], settings: SweepSettings, directory: Path, engine: SweepEngine
) -> Iterator[tuple[Point, Outcome]]:
    """Compute the points that the study in a directory does not have, and yield each when it is finished.

    Parameters
    ----------
    points : sequence of Point
    settings : SweepSettings
    directory : Path
        It holds the study, ``sweep.db``, and the dense networks.
    engine : callable
        `in_turn`, or `dcformat_pruning.ray_sweep.on_ray`.

    Raises
    ------
    ValueError
        The study in the directory has other settings.
    """
    study = open_study(directory)
    known = study.user_attrs.get("settings")
    if known not in (None, list(settings)):
        raise ValueError(f"{directory}: expected a sweep with the same settings, found one with {known}")
    study.set_user_attr("settings", list(settings))
    done = outcomes(directory)
    for point, outcome in engine([each for each in points if each not in done], settings, directory):
        distributions = {
            "criterion": optuna.distributions.CategoricalDistribution(list(CRITERIA)),
            "density": optuna.distributions.FloatDistribution(0.0, 1.0),
            "clusters": optuna.distributions.IntDistribution(2, 1 << 16),
            "seed": optuna.distributions.IntDistribution(0, 1 << 31),
        }
        trial = optuna.trial.create_trial(params=point._asdict(), distributions=distributions, values=list(outcome))
        study.add_trial(trial)
        yield point, outcome


def open_study(directory: Path) -> optuna.Study:
    """Open the study of a directory, or begin it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=f"sqlite:///{directory / 'sweep.db'}",
        study_name=_STUDY,
        load_if_exists=True,
        directions=["minimize", "maximize"],
    )


def outcomes(directory: Path) -> dict[Point, Outcome]:
    """Return the finished points of a directory."""
    trials = open_study(directory).get_trials(deepcopy=False)
    return {Point(**trial.params): Outcome(int(trial.values[0]), trial.values[1]) for trial in trials}


def front(found: dict[Point, Outcome]) -> list[Point]:
    """Return the points that no other point beats in both size and accuracy, smallest first."""
    best: list[Point] = []
    for point in sorted(found, key=lambda each: (found[each].size, -found[each].accuracy, each)):
        if not best or found[point].accuracy > found[best[-1]].accuracy:
            best.append(point)
    return best


def in_turn(points: Sequence[Point], settings: SweepSettings, directory: Path) -> Iterator[tuple[Point, Outcome]]:
    """Compute one point after another in this process."""
    images = images_for(settings)
    for point in points:
        yield point, work_out(point, settings, images, dense_state(point.seed, settings, images, directory))


def images_for(settings: SweepSettings) -> TrainingData:
    """Return the training and validation images."""
    data = training_data(settings.data)
    if settings.images is None:
        return data
    few = Images(data.train.pixels[: settings.images], data.train.labels[: settings.images])
    return TrainingData(few, data.validation)


def dense_state(seed: int, settings: SweepSettings, images: TrainingData, directory: Path) -> dict[str, Any]:
    """Return the dense network of a seed, trained once for a directory."""
    path = directory / f"dense-{seed}.pt"
    if not path.exists():
        module = train_strong(images, seed, None, settings.dense_epochs)
        part = path.with_suffix(".partial")
        torch.save(module.state_dict(), part)
        part.replace(path)
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


def work_out(point: Point, settings: SweepSettings, images: TrainingData, dense: dict[str, Any]) -> Outcome:
    """Prune, retrain, share and pack a dense network."""
    module = build(ARCHITECTURE, point.seed)
    module.load_state_dict(dense)
    criterion, sample = CRITERIA[point.criterion](point.seed), first_images(images.train)
    scores = criterion.scores(module, sample)
    keep = max(len(scored_layers(module)), round(point.density * _weights(module)))
    pruned = copy.deepcopy(module)
    prune(pruned, criterion, scores, own_budget(module, criterion, scores, keep), sample)
    retrain(pruned, images.train, settings.epochs, point.seed)
    clusters = {}
    for name, layer in scored_layers(pruned).items():
        distinct = len(torch.unique(layer.weight[layer.weight != 0]))
        if distinct:
            clusters[name] = min(point.clusters, distinct)
    share(pruned, clusters, seed=point.seed)
    model = architecture_model(pruned, ARCHITECTURE, Preprocessing((0.0,), (1.0,)))
    return Outcome(len(written_bytes(model, settings.mode)), evaluate(pruned, images.validation))


def _weights(module: nn.Module) -> int:
    return sum(layer.weight.numel() for layer in scored_layers(module).values())


def to_csv(found: dict[Point, Outcome]) -> str:
    """Return a table of all points, ordered; the last column says whether a point is on the front."""
    best, out = set(front(found)), io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*Point._fields, *Outcome._fields, "front"])
    for point in sorted(found):
        writer.writerow([*point, found[point].size, f"{found[point].accuracy:.6f}", int(point in best)])
    return out.getvalue()


def plot(found: dict[Point, Outcome], path: Path) -> None:
    """Draw all points, a colour for each criterion, and the front."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 4.5))
    for criterion in sorted({point.criterion for point in found}):
        of_it = [outcome for point, outcome in found.items() if point.criterion == criterion]
        axis.scatter([each.size for each in of_it], [100 * each.accuracy for each in of_it], s=14, label=criterion)
    best = [found[point] for point in front(found)]
    axis.step([each.size for each in best], [100 * each.accuracy for each in best], where="post", color="black", lw=1)
    axis.set(xscale="log", xlabel="size of the file, bytes", ylabel="validation accuracy, %")
    axis.legend()
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
