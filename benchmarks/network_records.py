"""Compress an image network of the study with `dcformat_pruning.compress`, and measure the file.

    python benchmarks/network_records.py resnet-20 --seed 0 --data DIR --work DIR --test -o models/resnet-20.dcf

DIR holds cifar10_jpeg.tar.xz; see docs/study-networks.md. The work directory keeps the dense networks and the stages of
the compression, from which an interrupted run continues. Settings were chosen on 5,000 validation images; `--test`
reads the test images, once, through the file.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from dcformat_pruning import Goal, RunControl, Settings, compress
from dcformat_pruning.data import Images, TrainingData
from dcformat_pruning.meter import StageProgress
from dcformat_pruning.study.image_networks import image_network
from dcformat_pruning.study.jpeg_archive import jpeg_test_images, jpeg_training_data
from dcformat_pruning.study.network_training import plan_of, train_dense
from dcformat_pruning.study.saved_rows import trained
from dcformat_pruning.training import evaluate
from torch import Tensor, nn

#: Number of images that are measured at a time: few enough for the activations to stay in the processor's cache.
_MEASURED_AT_A_TIME = 200


@dataclass(frozen=True, slots=True)
class Record:
    """The options by which a network is compressed.

    Attributes
    ----------
    dense : int
        Epochs of the dense network.
    density : float
        Share of the weights to keep.
    settings : Settings
    teachers : tuple of str
        The dense networks whose mean outputs are the targets: the network itself before it is pruned, and others, of
        seed 0.
    """

    dense: int
    density: float
    settings: Settings
    teachers: tuple[str, ...]


_SETTINGS = Settings(
    distill=0.7, cost_power=0.5, floor=0.1, clusters=24, rate=0.0095, levels=63, bfloat16=True, mode="tiny"
)

#: An earlier way, which made two of the files.
_PORTIONS = replace(_SETTINGS, cost_power=0.0, floor=0.2, sharing="portions", clusters=16, rate=0.0, bits=7)

RECORDS = {
    "resnet-8": Record(
        30,
        0.2445,
        replace(_SETTINGS, epochs=(18, 9, 3), lr=(1.6e-2, 5e-4, 1e-4), weight_decay=0.01),
        ("vgg-7", "resnet-20"),
    ),
    "resnet-20": Record(30, 0.166, replace(_PORTIONS, epochs=(22, 7, 3), lr=(3e-3, 1e-3, 5e-4)), ("resnet-20",)),
    "vgg-7": Record(
        54,
        0.075,
        replace(_SETTINGS, epochs=(40, 10, 4), lr=(4e-3, 5e-4, 1e-4), weight_decay=0.05),
        ("vgg-7", "resnet-20"),
    ),
    "vit": Record(24, 0.18, replace(_PORTIONS, epochs=(9, 4, 1), lr=(1.5e-3, 7e-4, 3e-4), clusters=11), ("resnet-20",)),
}


class Ensemble(nn.Module):
    """The mean of the outputs of several networks."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean logits."""
        return torch.stack([network(x) for network in self.networks]).mean(0)


@dataclass(frozen=True, slots=True, eq=False)
class Loader:
    """Batches of augmented images in random order, drawn from PyTorch's generator as by a DataLoader.

    Attributes
    ----------
    images : Images
    network : str
        The network whose plan gives the batch size and the augmentation.
    """

    images: Images
    network: str

    def __len__(self) -> int:
        return self.images.steps(plan_of(self.network, self.images).batch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        plan = plan_of(self.network, self.images)
        return self.images.batches(plan.batch, torch.default_generator, plan.augmentation)


def dense_network(name: str, data: TrainingData, seed: int, work: Path) -> nn.Module:
    """Train a dense network, or load it from the work directory."""
    epochs = RECORDS[name].dense
    fresh = image_network(name, *data.train.pixels.shape[1:3], seed)
    key = f"dense={epochs} images={len(data.train)} torch={torch.__version__}"
    return trained(work, seed, name, key, fresh, partial(train_dense, name, data, seed, epochs, _show_epoch))


def _show_epoch(stage: str, epoch: float, epochs: int, figures: dict[str, float]) -> None:
    if epoch == int(epoch):
        print(f"{time.strftime('%H:%M:%S')} {stage} {epoch:g}/{epochs} {figures}", flush=True)


def _show_step(step: StageProgress) -> None:
    if step.unit == "epochs":
        _show_epoch(step.stage, step.done, step.total, dict(step.figures))


def measured(images: Images, module: nn.Module) -> float:
    """Return the accuracy of a network, 0 to 1."""
    return evaluate(module, images, _MEASURED_AT_A_TIME)


def main() -> None:
    """Compress the network that the command line names, and print its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=RECORDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where networks and stages are saved")
    parser.add_argument("--density", type=float, help="share of the weights to keep")
    parser.add_argument("--epochs", type=int, help="epochs of the compression")
    parser.add_argument("--clusters", type=int, help="number of values that the weights of a layer share")
    parser.add_argument("--test", action="store_true", help="read the test images, once")
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    name, seed, work, record = arguments.network, arguments.seed, arguments.work, RECORDS[arguments.network]
    chosen = {each: value for each in ("epochs", "clusters") if (value := getattr(arguments, each)) is not None}
    metadata = {"seed": str(seed), "input": "RGB, 0 to 1"}
    settings = replace(record.settings, seed=seed, metadata=metadata, **chosen)
    density = arguments.density or record.density
    data = jpeg_training_data(arguments.data)
    test = jpeg_test_images(arguments.data) if arguments.test else None
    module = dense_network(name, data, seed, work)
    floats = 4 * sum(p.numel() for p in module.parameters())
    dense_test = None if test is None else measured(test, module)
    teachers = [module if each == name else dense_network(each, data, 0, work) for each in record.teachers]
    made = compress(
        module,
        train=Loader(data.train, name),
        validate=partial(measured, data.validation),
        test=None if test is None else partial(measured, test),
        goal=Goal(density=density),
        settings=settings,
        teacher=Ensemble(teachers),
        control=RunControl(work / f"{name}-{seed}-{density:g}-{settings.clusters}", _show_step),
    )
    arguments.out.write_bytes(made.data)
    stages = {stage.stage: round(stage.metric, 4) for stage in made.stages}
    result = {"bytes": len(made.data), "ratio": round(floats / len(made.data), 1), "weights": made.trials[0].keep}
    result |= {"validation": made.metric, "dense": made.dense, "stages": stages, "note": made.note}
    if test is not None:
        result |= {"test": made.tested, "dense test": dense_test}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
