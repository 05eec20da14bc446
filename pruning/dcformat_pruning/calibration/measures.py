"""Measures how far the outputs of a compressed network are from those of the dense one.

The measure is the Kullback-Leibler divergence of outputs that are probabilities or logits, and half the squared error
of other outputs, relative to their mean square. Divergences are means over all places of an output, in nats. Each
number of a sigmoid is a separate probability; the divergences along the last dimension are added up.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dcformat.graph import Output, Softmax, Unary
from dcformat_pruning.calibration.torch_network import TorchNetwork

#: Added to the second derivative of each logit of a sigmoid. Where a network is sure, the derivative is almost 0, so
#: large errors would seem to cost nothing.
_LEAST = 1e-3


class Measure:
    """Compares the outputs of two networks.

    Parameters
    ----------
    network : TorchNetwork
    logits : bool
        Whether outputs are logits along their last dimension. Those of a softmax are probabilities in any case.
    only : sequence of str
        Names of the outputs to compare; all by default.
    """

    def __init__(self, network: TorchNetwork, logits: bool = False, only: Sequence[str] = ()) -> None:
        self.kinds: list[str | None] = [
            None if only and output.name not in only else _kind(network, output, logits)
            for output in network.graph.outputs
        ]
        self._scales: dict[int, float] = {}

    def fit(self, outputs: Sequence[Sequence[Tensor]]) -> None:
        """Find the mean squares of the outputs of the dense network, given in batches."""
        for place, kind in enumerate(self.kinds):
            if kind == "numbers":
                mean = torch.stack([batch[place].double().square().mean() for batch in outputs]).mean()
                self._scales[place] = max(float(mean), 1e-30)

    def probe(self, outputs: Sequence[Tensor], generator: torch.Generator) -> Tensor:
        """Return a random number whose gradients' squares are, on average, second derivatives of the measure.

        This refers to the sum of the measure over the batch. The probe is normal noise times numbers or the logits of
        sigmoids, or the logarithm of a class drawn from each distribution.
        """
        total = outputs[0].new_zeros(())
        for place, (kind, y) in enumerate(zip(self.kinds, outputs, strict=True)):
            if kind == "numbers":
                noise = torch.randn(y.shape, generator=generator)
                total = total + (noise * y).sum() / (self._scales[place] * y[0].numel()) ** 0.5
            elif kind == "chances":
                noise = torch.randn(y.shape, generator=generator)
                logits, chances = _log(y) - _log_rest(y), y.detach()
                total = total + (noise * (chances * (1 - chances) + _LEAST).sqrt() * logits).sum() / _places(y) ** 0.5
            elif kind is not None:
                logs = _logs(y, kind).reshape(-1, y.shape[-1])
                drawn = torch.multinomial(logs.detach().exp(), 1, generator=generator)
                total = total + logs.gather(1, drawn).sum() / _places(y) ** 0.5
        return total

    def change(self, dense: Sequence[Tensor], compressed: Sequence[Tensor]) -> float:
        """Return the sum of the measure over a batch."""
        return float(self.divergence([y.double() for y in dense], [y.double() for y in compressed]))

    def divergence(self, dense: Sequence[Tensor], compressed: Sequence[Tensor]) -> Tensor:
        """Return the sum of the measure over a batch, so that it can be differentiated."""
        total = dense[0].new_zeros(())
        for place, (kind, p, q) in enumerate(zip(self.kinds, dense, compressed, strict=True)):
            if kind == "numbers":
                total = total + (p - q).square().sum() / (2 * self._scales[place] * p[0].numel())
            elif kind == "chances":
                off = p * (_log(p) - _log(q)) + (1 - p) * (_log_rest(p) - _log_rest(q))
                total = total + off.sum() / _places(p)
            elif kind is not None:
                logs = _logs(p, kind)
                total = total + (logs.exp() * (logs - _logs(q, kind))).sum() / _places(p)
        return total


def _kind(network: TorchNetwork, output: Output, logits: bool) -> str:
    number = output.value - len(network.graph.inputs)
    node = network.graph.nodes[number] if number >= 0 else None
    if isinstance(node, Softmax) and node.axis is None:
        return "probabilities"
    if isinstance(node, Unary) and node.function == "sigmoid":
        return "chances"
    return "logits" if logits and network.shapes[output.value] else "numbers"


def _logs(y: Tensor, kind: str) -> Tensor:
    return y.log_softmax(-1) if kind == "logits" else _log(y)


def _log(y: Tensor) -> Tensor:
    return y.clamp_min(1e-30).log()


def _log_rest(y: Tensor) -> Tensor:
    """Return the logarithm of 1 minus each number; the rounding of float32 leaves at least half a step of that."""
    return (1 - y).clamp_min(2.0**-25).log()


def _places(y: Tensor) -> float:
    """Return the number of distributions of an input, each of which is along the last dimension."""
    return y[0].numel() / (y.shape[-1] if y.ndim > 1 else 1)
