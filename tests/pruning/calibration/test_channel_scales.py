"""The mean and the variance of each channel of a compressed network are brought back to those of the dense one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dcformat_pruning.calibration.channel_scales import rescaled
from dcformat_pruning.calibration.layers import find_layers
from dcformat_pruning.calibration.torch_network import TorchNetwork

import dcformat
from dcformat import Model
from dcformat.graph import Conv, Graph, Linear, Node

torch.set_num_threads(1)

STEP = 1 / 64


def network(shape: tuple[int, ...], node: Node, weights: tuple[int, ...]) -> TorchNetwork:
    """Return a layer whose weights and biases are multiples of `STEP`."""
    rng = np.random.default_rng(1)
    arrays = {"w": rng.standard_normal(weights), "b": rng.standard_normal(weights[0])}
    tensors = {n: dcformat.from_dense(n, (np.rint(a / STEP) * STEP).astype(np.float32)) for n, a in arrays.items()}
    return TorchNetwork(Model(tensors, Graph.sequential(shape, [node])))


def moments(network: TorchNetwork, batches: list[list[torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.cat([network.run(batch)[0] for batch in batches]).double().movedim(1, 0).flatten(1)
    return y.mean(1), y.var(1, correction=0)


LAYERS = {
    "linear": ((12,), Linear((0,), "w", "b"), (6, 12)),
    "wide": ((1500,), Linear((0,), "w", "b"), (6, 1500)),
    "convolution": ((3, 8, 8), Conv((0,), "w", "b", stride=(2, 2)), (6, 3, 3, 3)),
    "depthwise": ((6, 8, 8), Conv((0,), "w", "b", groups=6), (6, 1, 3, 3)),
    "groups": ((4, 8, 8), Conv((0,), "w", "b", groups=2), (6, 2, 3, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_channels_that_shrank_are_brought_back(name: str) -> None:
    shape, node, weights = LAYERS[name]
    dense = network(shape, node, weights)
    batches = [[torch.randn(16, *shape, generator=torch.Generator().manual_seed(k)) + 0.5] for k in range(3)]
    pruned = dense.tensors["w"] * (torch.rand(weights, generator=torch.Generator().manual_seed(9)) < 0.8)
    pruned[0], pruned[1] = 0, dense.tensors["w"][1]  # a channel that is dead, and one that nothing happened to
    compressed = dense.with_tensors({"w": pruned})
    (layer,) = [layer for layer in find_layers(dense.graph, {"w": weights, "b": weights[:1]}) if layer.uses]
    found, steps = rescaled(dense, compressed, [(0, layer, "b")], batches, {"w": STEP, "b": STEP})
    wanted, made = moments(dense, batches), moments(dense.with_tensors(found), batches)
    torch.testing.assert_close(made[1][1:], wanted[1][1:], rtol=0.01, atol=0)
    torch.testing.assert_close(made[0], wanted[0], rtol=0, atol=0.51 * STEP)
    assert not found["w"][0].any()
    torch.testing.assert_close(found["w"][1], dense.tensors["w"][1], rtol=0.002, atol=0)
    multiples = found["w"] / steps["w"]
    assert torch.equal(multiples, pruned / STEP)
    assert np.shape(steps["w"]) == (6, *[1] * (len(weights) - 1))


def test_tensors_without_a_step_are_left_as_they_are() -> None:
    shape, node, weights = LAYERS["linear"]
    dense = network(shape, node, weights)
    layer = find_layers(dense.graph, {"w": weights, "b": weights[:1]})[0]
    compressed = dense.with_tensors({"w": dense.tensors["w"] / 2})
    assert rescaled(dense, compressed, [(0, layer, "b")], [[torch.randn(4, 12)]], {"b": STEP}) == ({}, {"b": STEP})


def test_later_layers_are_corrected_for_the_results_of_earlier_ones() -> None:
    rng = np.random.default_rng(2)
    tensors = {
        name: dcformat.from_dense(name, (np.rint(rng.standard_normal(shape) * 64) / 64).astype(np.float32))
        for name, shape in {"v": (8, 5), "a": (8,), "w": (3, 8), "b": (3,)}.items()
    }
    dense = TorchNetwork(Model(tensors, Graph.sequential((5,), [Linear((0,), "v", "a"), Linear((1,), "w", "b")])))
    compressed = dense.with_tensors({"v": dense.tensors["v"] / 2})
    layers = [one for one in find_layers(dense.graph, {n: t.shape for n, t in tensors.items()}) if one.uses]
    channels = [(0, layers[0], "a"), (1, layers[1], "b")]
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    found, _ = rescaled(dense, compressed, channels, [[x]], {"v": STEP / 2, "a": STEP, "w": STEP, "b": STEP})
    torch.testing.assert_close(found["v"], dense.tensors["v"], rtol=0.002, atol=0)
    torch.testing.assert_close(found["w"], dense.tensors["w"], rtol=0.01, atol=0)
