"""Compresses the language model stories260K without training data, for text that it writes itself.

    python benchmarks/calibration/language_model.py ../shared/data/stories260k stories.dcf [DENSITY [CHANGE]]

The network takes a whole text of `LENGTH` tokens and returns the logits of each next token. It is compressed for texts
that the dense network draws from its own probabilities; the divergence is that on other texts, which are drawn later.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import dcformat_runtime
import numpy as np
import torch
from dcformat_pruning import from_module
from dcformat_pruning.calibration import CalibrationGoal, CalibrationOptions, CalibrationTrial, compress_calibrated
from torch import Tensor

import dcformat

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))
from stories import START, Llama, load_llama

#: Tokens in a text, texts to compress for and to test with, and gradients to take at each.
LENGTH, TEXTS, TESTS, PROBES = 128, 768, 64, 4
#: Gradient steps towards the dense network's outputs, while weights are pruned and again after they are coded.
STEPS = 800


@torch.no_grad()
def drawn(llama: Llama, count: int) -> Tensor:
    """Draw texts from the network's probabilities, ``(count, LENGTH)``."""
    tokens = torch.full((count, 1), START)
    known: list[tuple[Tensor, Tensor]] = []
    for position in range(LENGTH - 1):
        x, angles = llama.embedding(tokens[:, -1:]), llama.angles[position : position + 1]
        for number, block in enumerate(llama.blocks):
            q, k, v = block.projected(x, angles)
            if position:
                k, v = (torch.cat(pair, 2) for pair in zip(known[number], (k, v), strict=True))
            known[number : number + 1] = [(k, v)]
            x = block.finished(x, q, k, v, torch.ones(1, position + 1, dtype=torch.bool))
        logits = (llama.norm(x) @ llama.embedding.weight.T)[:, 0]
        tokens = torch.cat((tokens, torch.multinomial(logits.softmax(-1), 1)), 1)
    return tokens


def report(trial: CalibrationTrial, best: bool) -> None:
    """Print a trial."""
    print(
        f"{'*' if best else ' '} {trial.size:,} bytes, density {trial.density:.3f}, divergence {trial.change:.4f}",
        flush=True,
    )


def main() -> None:
    """Compress, write and test the network."""
    folder, path = Path(sys.argv[1]), Path(sys.argv[2])
    density, change = (float(sys.argv[k]) if len(sys.argv) > k else default for k, default in ((3, 0.65), (4, 0.048)))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    started = time.process_time()
    llama = load_llama(folder / "stories260K.bin")
    model = from_module(llama, {"tokens": torch.zeros(2, LENGTH, dtype=torch.int64)})
    options = CalibrationOptions(density=density, logits=True, probes=PROBES, refine=STEPS)
    texts = drawn(llama, TEXTS).numpy()
    best = compress_calibrated(model, {"tokens": texts}, CalibrationGoal("change", change), options, report)
    path.write_bytes(best.packed)
    took = time.process_time() - started
    tests = drawn(llama, TESTS).numpy()
    dense, packed = (
        torch.from_numpy(dcformat_runtime.load(content, threads=1)(tests)).double().log_softmax(-1)
        for content in (dcformat.dumps(model), best.packed)
    )
    divergence = float((dense.exp() * (dense - packed)).sum(-1).mean())
    same = float((dense.argmax(-1) == packed.argmax(-1)).double().mean())
    lost = np.exp(-float(packed[:, :-1].gather(2, torch.from_numpy(tests)[:, 1:, None]).mean()))
    own = np.exp(-float(dense[:, :-1].gather(2, torch.from_numpy(tests)[:, 1:, None]).mean()))
    print(
        f"{path}: {best.size:,} bytes, density {best.density:.3f}; divergence {divergence:.4f} on other texts, "
        f"{100 * same:.1f} % of the likeliest tokens the same, perplexity {lost:.3f} (dense: {own:.3f}); "
        f"{took:.0f} s of CPU"
    )


if __name__ == "__main__":
    main()
