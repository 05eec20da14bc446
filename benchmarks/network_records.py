"""Compress an image network of the study: train, prune gradually, fold batch norms, share weights, round, pack.

    python benchmarks/network_records.py resnet-8 --seed 0 --data DIR --work DIR -o models/resnet-8.dcf

DIR holds cifar10_jpeg.tar.xz; see docs/study-networks.md. Each stage is saved in the work directory, and an interrupted
run continues from its last complete stage. A dense network teaches the pruned one. All settings were chosen on 5,000
validation images; the test images are read once, at the end.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from dcformat_pruning import from_module
from dcformat_pruning.data import Images, TrainingData
from dcformat_pruning.export.folding import fold_batch_norm
from dcformat_pruning.masks import Masks, weight_names
from dcformat_pruning.recipes.saved_stages import SavedStage, load_stage, save_stage
from dcformat_pruning.schedules import GradualBalanced
from dcformat_pruning.sharing import IncrementalSharing, SharedWeights, quantise_biases, round_weights
from dcformat_pruning.study.image_networks import image_network
from dcformat_pruning.study.jpeg_archive import jpeg_test_images, jpeg_training_data
from dcformat_pruning.study.network_training import plan_of, train_dense
from dcformat_pruning.training import Progress, TrainingPlan, evaluate, fit
from dcformat_runtime import Session
from torch import nn

import dcformat
from dcformat.graph import Preprocessing


@dataclass(frozen=True, slots=True)
class Settings:
    """How far a network is compressed, and for how long it trains.

    Attributes
    ----------
    dense, prune, share : int
        Epochs of the three long stages.
    keep : int
        Number of weights at the end.
    clusters : int
        Number of values of a layer's weights.
    lr : float
        Peak learning rate of the pruning.
    teacher : str or None
        The network whose outputs are the targets; None for the network itself before it is pruned.
    """

    dense: int
    prune: int
    share: int
    keep: int
    clusters: int = 8
    lr: float = 3e-3
    teacher: str | None = None

    def key(self, stage: str) -> str:
        """Return what the result of a stage depends on, besides the network and the seed."""
        pruning = (self.dense, self.prune, self.keep, self.lr, self.teacher)
        return str(pruning if stage == "prune" else (*pruning, self.share, self.clusters))


SETTINGS = {
    "resnet-8": Settings(dense=30, prune=20, share=10, keep=27_000, clusters=16, teacher="vgg-7"),
    "vgg-7": Settings(dense=20, prune=13, share=4, keep=45_000, clusters=12),
}

#: Pixels are only divided by 255.
_PREPROCESSING = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

#: Epochs that train the centroids after biases were rounded.
_SETTLE = 2

Stage = Callable[[nn.Module, Progress], None]


def stages(name: str, settings: Settings, data: TrainingData, teacher: nn.Module, seed: int) -> dict[str, Stage]:
    """Return the stages that follow the dense training, in order; each changes the module in place."""
    plan = replace(
        plan_of(name, data.train),
        optimizer="adam",
        weight_decay=0.0,
        smoothing=0.0,
        warmup=0.05,
        distill=0.7,
        temperature=2.0,
    )

    def run(module: nn.Module, plan: TrainingPlan, constraint: object, stage: str, progress: Progress) -> None:
        number = 1 + list(found).index(stage)
        constraints = (constraint,)
        fit(
            module,
            data.train,
            plan,
            seed=seed + number,
            constraints=constraints,
            teacher=teacher,
            stage=stage,
            progress=progress,
        )

    def prune(module: nn.Module, progress: Progress) -> None:
        masks = Masks.from_zeros(module)
        pruning = GradualBalanced(module, masks, settings.keep, until=0.6, freeze=0.9)
        run(module, replace(plan, epochs=settings.prune, lr=settings.lr), pruning, "prune", progress)

    def share(module: nn.Module, progress: Progress) -> None:
        fold_batch_norm(module)
        counts = {}
        for weight in weight_names(module):
            values = module.get_parameter(weight).detach()
            counts[weight] = min(settings.clusters, len(torch.unique(values[values != 0])))
        sharing = IncrementalSharing(module, counts)
        run(module, replace(plan, epochs=settings.share, lr=1e-3), sharing, "share", progress)

    def settle(module: nn.Module, progress: Progress) -> None:
        quantise_biases(module, 63)
        shared = SharedWeights.from_values(module, weight_names(module))
        for parameter in module.parameters():
            parameter.requires_grad_(parameter.ndim > 1)
        run(module, replace(plan, epochs=_SETTLE, lr=5e-4), shared, "settle", progress)
        round_weights(module, 7)

    found: dict[str, Stage] = {"prune": prune, "share": share, "settle": settle}
    return found


class Folder:
    """The saved stages of a network in the work directory; a line on stdout tells the outcome of each.

    Parameters
    ----------
    work : Path
        The work directory, with a folder for each network.
    """

    def __init__(self, work: Path, name: str, data: TrainingData) -> None:
        self._folder, self._data = work / name, data

    def step(self, number: int, stage: str, key: str, module: nn.Module, run: Callable[[], nn.Module]) -> nn.Module:
        """Return the module that `run` makes, or that was saved; `module` takes the saved weights."""
        saved = load_stage(self._folder, number, stage, key)
        if saved is None:
            started = time.perf_counter()
            module = run().eval()
            accuracy = evaluate(module, self._data.validation)
            weights = sum(int((p != 0).sum()) for p in module.parameters() if p.ndim > 1)
            report = {"stage": stage, "validation": accuracy, "weights": weights}
            report["seconds"] = round(time.perf_counter() - started)
            saved = SavedStage(module.state_dict(), {}, json.dumps(report))
            save_stage(self._folder, number, stage, key, saved)
        if stage == "share":
            fold_batch_norm(module)
        module.load_state_dict(saved.state)
        print(saved.report, flush=True)
        return module.eval()


def dense_network(name: str, data: TrainingData, seed: int, work: Path) -> nn.Module:
    """Train a dense network, or load it from the work directory."""
    epochs = SETTINGS[name].dense
    channels, size = data.train.pixels.shape[1:3]
    fresh = image_network(name, channels, size, seed)
    key = f"{name} {seed} {epochs}"
    return Folder(work, name, data).step(0, "dense", key, fresh, lambda: train_dense(name, data, seed, epochs, show))


def compress(name: str, data: TrainingData, seed: int, work: Path, settings: Settings) -> nn.Module:
    """Run all stages, or load those that the work directory already holds; print a line for each."""
    module = dense_network(name, data, seed, work)
    teacher = copy.deepcopy(module) if settings.teacher is None else dense_network(settings.teacher, data, seed, work)
    teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    folder = Folder(work, name, data)
    for number, (stage, run) in enumerate(stages(name, settings, data, teacher, seed).items(), 1):

        def changed(module: nn.Module = module, run: Stage = run) -> nn.Module:
            run(module, show)
            return module

        module = folder.step(number, stage, f"{name} {seed} {settings.key(stage)}", module, changed)
    return module


def show(stage: str, epoch: float, epochs: int, figures: dict[str, float]) -> None:
    """Print a line at the end of each epoch."""
    if epoch == int(epoch):
        print(f"{time.strftime('%H:%M:%S')} {stage} {epoch:g}/{epochs} {figures}", flush=True)


def accuracy_of(session: Session, images: Images) -> float:
    """Return the accuracy of a packed network, 0 to 1."""
    right = 0
    for start in range(0, len(images), 500):
        chosen = slice(start, start + 500)
        logits = np.asarray(session(images.floats(chosen).numpy()))
        right += int((logits.argmax(1) == images.labels[chosen].numpy()).sum())
    return right / len(images)


def main() -> None:
    """Compress the network that the command line names, and print its figures as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=SETTINGS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where stages are saved")
    parser.add_argument("--keep", type=int, help="number of weights to keep")
    parser.add_argument("--clusters", type=int, help="number of values of a layer")
    parser.add_argument("--test", action="store_true", help="read the test images, once")
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    settings = SETTINGS[arguments.network]
    chosen = {name: value for name in ("keep", "clusters") if (value := getattr(arguments, name)) is not None}
    settings = replace(settings, **chosen)
    data = jpeg_training_data(arguments.data)
    module = compress(arguments.network, data, arguments.seed, arguments.work, settings)
    shape = data.train.pixels.shape[1:]
    model = from_module(module, shape, preprocessing=_PREPROCESSING, metadata={"seed": str(arguments.seed)})
    dcformat.save(model, arguments.out, mode="tiny")
    size = arguments.out.stat().st_size
    session = Session.from_model(model)
    dense = sum(p.numel() for p in image_network(arguments.network, 3, 32).parameters()) * 4
    result = {"bytes": size, "ratio": round(dense / size, 1), "validation": accuracy_of(session, data.validation)}
    if arguments.test:
        test = jpeg_test_images(arguments.data)
        result["test"] = accuracy_of(session, test)
        result["dense test"] = evaluate(dense_network(arguments.network, data, arguments.seed, arguments.work), test)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
