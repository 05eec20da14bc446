"""Compresses the language model stories260K without training data, for text that it writes itself.

    python benchmarks/calibration/language_model.py ../shared/data/stories260k stories.dcf [PRICE ...]

The network takes a whole text of `LENGTH` tokens and returns the logits of each next token. It is compressed for texts
that the dense network draws from its own probabilities; the divergence is that on other texts, which are drawn later.
Each price is that of a bit, in nats a token. The smallest file with a divergence of at most `CHANGE`, on texts that
were kept apart, is written.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import dcformat_runtime
import numpy as np
import torch
from dcformat_pruning import from_module
from dcformat_pruning.calibration import CalibrationOptions, CalibrationTrial
from dcformat_pruning.calibration.post_training import Calibrated
from torch import Tensor

import dcformat

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))
from stories import START, Llama, load_llama

#: Tokens in a text, texts to compress for and to test with, and gradients to take at each.
LENGTH, TEXTS, TESTS, PROBES = 128, 12288, 256, 1
#: Gradient steps towards the dense network's outputs, while weights are pruned and again after they are coded.
STEPS = 4000
#: The largest share of the weights that may stay, and the largest divergence.
DENSITY, CHANGE = 0.5, 0.049


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


def main() -> None:
    """Compress, write and test the network."""
    folder, path, prices = Path(sys.argv[1]), Path(sys.argv[2]), [float(price) for price in sys.argv[3:]] or [1.3e-7]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    started = time.process_time()
    llama = load_llama(folder / "stories260K.bin")
    model = from_module(llama, {"tokens": torch.zeros(2, LENGTH, dtype=torch.int64)})
    options = CalibrationOptions(density=DENSITY, logits=True, probes=PROBES, refine=STEPS)
    compressor = Calibrated(model, {"tokens": drawn(llama, TEXTS).numpy()}, options)
    print(f"pruned: divergence {compressor.compared(compressor.walk.network.tensors)[0]:.4f}", flush=True)
    best: CalibrationTrial | None = None
    for price in prices:
        trial = compressor.attempt(price)
        print(
            f"{trial.size:,} bytes at {price:g}, density {trial.density:.3f}, divergence {trial.change:.4f}", flush=True
        )
        if trial.change <= CHANGE and (best is None or trial.size < best.size):
            best = trial
            path.write_bytes(best.packed)
    if best is None:
        sys.exit(f"no file has a divergence of at most {CHANGE}")
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
