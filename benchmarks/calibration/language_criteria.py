"""Compares pruning criteria on the language model stories260K, for text that it writes itself.

    python benchmarks/calibration/language_criteria.py ../shared/data/stories260k [SEEDS]

Each criterion scores the Linear layers on texts that the dense network draws from its own probabilities. The result is
the Kullback-Leibler divergence from the dense network, in nats a token, on other texts: right after pruning, and for
some rows after gradient steps towards the dense network's outputs. Seeds differ in the texts, and in random scores. The
tables are Markdown.
"""

from __future__ import annotations

import copy
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from dcformat_pruning.feeds import feed_of
from dcformat_pruning.objectives import Supervised
from dcformat_pruning.study.criteria_report import table_row
from dcformat_pruning.study.network_comparison import NETWORK_CRITERIA, SELECTION_TITLES, prune_network, selections_of
from dcformat_pruning.training import TrainingPlan, fit
from language_model import drawn
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))
from stories import Llama, load_llama

#: Texts that criteria look at, that networks learn from, and that they are compared on; and texts at a time.
SCORED, LEARNT, TESTS, AT_A_TIME = 64, 512, 64, 16
#: All but OBD, which would take a backward pass for each of 512 tokens.
CRITERIA = ("magnitude", "Wanda", "TF-IDF", "Taylor", "Fisher", "OBS", "random")
DENSITIES = (0.8, 0.7, 0.5, 0.3, 0.2)
#: The rows that learn the dense network's outputs, and how.
RETRAINED, RETRAINED_DENSITIES = ("magnitude", "Wanda", "TF-IDF", "Fisher"), (0.5, 0.3)
PLAN = TrainingPlan(epochs=4, lr=1e-3, batch=AT_A_TIME, distill=1.0, temperature=1.0)

#: Selection, criterion and density.
Key = tuple[str, str, float]


def with_fixed_embedding(llama: Llama) -> Llama:
    """Return a copy whose embedding, which is also its last layer, is not among the weights that criteria score."""
    fixed = copy.deepcopy(llama)
    weight = fixed.embedding.weight.detach()
    del fixed.embedding.weight
    fixed.embedding.register_buffer("weight", weight)
    return fixed


@torch.no_grad()
def divergence(dense: nn.Module, pruned: nn.Module, texts: Tensor) -> float:
    """Return the mean divergence from the dense network, in nats a token."""
    total = 0.0
    for part in texts.split(AT_A_TIME):
        p, q = (network(part).double().log_softmax(-1) for network in (dense, pruned))
        total += float((p.exp() * (p - q)).sum())
    return total / texts.numel()


def compared(llama: Llama, seed: int) -> tuple[dict[Key, float], dict[Key, float]]:
    """Return the divergences right after pruning, and those after gradient steps."""
    torch.manual_seed(seed)
    dense = with_fixed_embedding(llama).eval()
    scored, learnt, tests = (drawn(llama, count) for count in (SCORED, LEARNT, TESTS))
    sample = [(part[:, :-1], part[:, 1:]) for part in scored.split(AT_A_TIME)]
    feed = feed_of((learnt[:, :-1], learnt[:, 1:]), torch.device("cpu"), "texts")
    before: dict[Key, float] = {}
    after: dict[Key, float] = {}
    for name in CRITERIA:
        criterion = NETWORK_CRITERIA[name](seed)
        scores = criterion.scores(dense, sample)
        for selection in selections_of(name):
            for density in DENSITIES:
                key, pruned = (selection, name, density), copy.deepcopy(dense)
                masks = prune_network(pruned, criterion, scores, selection, density, sample)
                before[key] = divergence(dense, pruned, tests)
                if name in RETRAINED and density in RETRAINED_DENSITIES:
                    fit(pruned, feed, PLAN, seed=seed, constraints=(masks,), teacher=dense, task=Supervised())
                    after[key] = divergence(dense, pruned, tests)
        print(f"seed {seed}: {name}", file=sys.stderr, flush=True)
    return before, after


def table(found: list[Mapping[Key, float]], selection: str) -> str:
    """Return the mean and the spread over the seeds, for one selection."""
    densities = sorted({density for _, _, density in found[0]}, reverse=True)
    names = dict.fromkeys(name for chosen, name, _ in found[0] if chosen == selection)
    head = ["criterion", *(f"{100 * density:g} %" for density in densities)]
    lines = [table_row(head), table_row(["---"] * len(head))]
    for name in names:
        cells = [name]
        for density in densities:
            values = [each[selection, name, density] for each in found]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{spread}")
        lines.append(table_row(cells))
    return "\n".join(lines)


def main() -> None:
    """Compare the criteria and print the tables."""
    torch.set_num_threads(1)
    llama = load_llama(Path(sys.argv[1]) / "stories260K.bin")
    rows = [compared(llama, seed) for seed in range(int(sys.argv[2]) if len(sys.argv) > 2 else 3)]
    for selection, title in SELECTION_TITLES.items():
        for moment, found in (
            ("Right after pruning", [b for b, _ in rows]),
            ("After retraining", [a for _, a in rows]),
        ):
            print(f"{moment}, {title} (divergence, nats a token):\n\n{table(found, selection)}\n")


if __name__ == "__main__":
    main()
