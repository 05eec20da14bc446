"""Compare ways of weight sharing on the pruned LeNet-300-100 of the recipe `default` (docs/records.md).

    OMP_NUM_THREADS=1 python benchmarks/sharing.py WORK

WORK keeps the stages of the recipe. Each way starts from its pruned network, with three seeds, and ends with the
recipe's rounding. Printed are the error and the cross-entropy on the 5,000 validation images, and the entropy of the
codes in bits for each weight.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import torch
from dcformat_pruning.data import Images, training_data
from dcformat_pruning.lenets import build
from dcformat_pruning.masks import weight_names
from dcformat_pruning.objectives import Classification
from dcformat_pruning.recipes import compress_architecture
from dcformat_pruning.recipes.architecture_recipes import recipe_for
from dcformat_pruning.sharing import IncrementalSharing, SharedWeights, StraightThroughSharing, share
from dcformat_pruning.state_dicts import load_tensors
from dcformat_pruning.training import Constraint, evaluate
from dcformat_pruning.training_stages.stage import StageContext
from dcformat_pruning.training_stages.stage_library import quantise_and_finetune
from torch import nn
from torch.nn import functional

_SEEDS = range(3)


def _counts(module: nn.Module, values: int) -> dict[str, int]:
    return dict.fromkeys(weight_names(module), values)


def _clustered(module: nn.Module, values: int) -> Constraint:
    share(module, _counts(module, values), "exact")
    return SharedWeights.from_values(module, weight_names(module))


#: Name to a function of the module and the number of values that makes the constraint of the training.
WAYS: dict[str, Callable[[nn.Module, int], Constraint]] = {
    "portions": lambda module, values: IncrementalSharing(module, _counts(module, values)),
    "k-means, then values trained": _clustered,
    "straight-through": lambda module, values: StraightThroughSharing(module, _counts(module, values), until=1.0),
    "straight-through, values trained in the second half": lambda module, values: StraightThroughSharing(
        module, _counts(module, values)
    ),
}


@torch.no_grad()
def _figures(module: nn.Module, images: Images) -> tuple[float, float, float]:
    """Return the error in percent, the cross-entropy, and the bits of a code."""
    logits = module(images.floats(slice(0, len(images))))
    bits, total = 0.0, 0
    for name in weight_names(module):
        weight = module.get_parameter(name)
        counts = torch.unique(weight[weight != 0], return_counts=True)[1]
        bits += float((counts * torch.log2(counts.sum() / counts)).sum())
        total += int(counts.sum())
    right = float((logits.argmax(1) == images.labels).float().mean())
    return 100 * (1 - right), float(functional.cross_entropy(logits, images.labels)), bits / total


def main() -> None:
    """Print a table for 12 and 6 values in each layer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="where stages are saved")
    work = parser.parse_args().work
    compress_architecture("lenet-300-100", "default", resume_dir=work)
    pruned = load_tensors(work / "02-prune.pt")["state"]
    goal = recipe_for("lenet-300-100", "default").goal
    assert goal is not None
    settings, images = goal.settings, training_data(None, torch.device("cpu"))
    _, sharing, settling = settings.plans()
    context = StageContext(images.train, lambda network: evaluate(network, images.validation), 0)
    context.train = goal.source(context)
    context.task = Classification()
    for values in (settings.clusters, settings.clusters // 2):
        for name, constraint in WAYS.items():
            rows = []
            for context.seed in _SEEDS:
                module = build("lenet-300-100", 0)
                module.load_state_dict(pruned)
                context.stage = "share"
                context.fit(module, sharing, constraint(module, values))
                context.stage = "settle"
                quantise_and_finetune(settling, settings.bits, settings.levels).run(module, context)
                rows.append(_figures(module, images.validation))
            error, loss, bits = (mean(column) for column in zip(*rows, strict=True))
            print(f"| {values} values: {name} | {error:.2f} | {loss:.4f} | {bits:.2f} |", flush=True)


if __name__ == "__main__":
    main()
