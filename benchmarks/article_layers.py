"""Shows how the length and the batch size of dense training affect each layer of the article's network.

    python benchmarks/article_layers.py --batch 50 --epochs 100 --data data/mnist

After 8, 25, 50 and 100 epochs it prints, as JSON lines, the validation accuracy, the share of weights below 0.001 in
each layer, and for each of the article's ratios the weights that a threshold in each layer leaves, with the accuracy
right after pruning. The article is the one of docs/study.md.
"""

from __future__ import annotations

import argparse
import copy
import json

import torch
from dcformat_pruning.criteria import Magnitude, TfIdf
from dcformat_pruning.data import TrainingData, training_data
from dcformat_pruning.masks import Masks
from dcformat_pruning.selection import sensitivity_masks, weight_spread
from dcformat_pruning.study.article import PUBLISHED, solve_sensitivity
from dcformat_pruning.study.baselines import article_decay, article_network, article_plan
from dcformat_pruning.study.pruned_networks import first_images
from dcformat_pruning.training import evaluate, fit
from torch import nn

MEASURED = (8, 25, 50, 100)
_SMALL = 1e-3


@torch.no_grad()
def describe(module: nn.Module, data: TrainingData, batch: int, epoch: int) -> None:
    """Print the figures of a network."""
    weights = {name: p for name, p in module.named_parameters() if p.ndim > 1}
    small = {name: round(float((p.abs() < _SMALL).float().mean()), 3) for name, p in weights.items()}
    accuracy = evaluate(module, data.validation)
    print(json.dumps({"batch": batch, "epoch": epoch, "validation": accuracy, "small": small}), flush=True)
    for criterion in (Magnitude(), TfIdf()):
        scores = criterion.scores(module, first_images(data.train))
        spread = weight_spread(module) if isinstance(criterion, Magnitude) else None
        for published in PUBLISHED:
            s = solve_sensitivity(module, scores, spread, published.ratio)
            masks = sensitivity_masks(scores, s, spread=spread)
            pruned = copy.deepcopy(module)
            Masks(pruned, masks).apply()
            found = {
                "criterion": criterion.name,
                "ratio": published.ratio,
                "s": round(s, 2),
                "left": {name: int(mask.sum()) for name, mask in masks.items()},
                "pruned": evaluate(pruned, data.validation),
            }
            print(json.dumps({"batch": batch, "epoch": epoch, **found}), flush=True)


def main() -> None:
    """Train a dense network and describe it after some of its epochs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", help="directory of IDX files")
    arguments = parser.parse_args()
    data = training_data(arguments.data)
    module = article_network(arguments.seed)

    def measure(stage: str, epoch: float, epochs: int, figures: dict[str, float]) -> None:
        if epoch in MEASURED:
            describe(module, data, arguments.batch, int(epoch))
            module.train()

    plan = article_plan(arguments.epochs, arguments.batch)
    fit(module, data.train, plan, seed=arguments.seed, constraints=(article_decay(module),), progress=measure)


if __name__ == "__main__":
    main()
