"""The choice of the weights that stay, and what these make up for."""

from __future__ import annotations

import numpy as np
import torch
from dcformat_pruning.calibration.layers import find_layers
from dcformat_pruning.calibration.measures import Measure
from dcformat_pruning.calibration.pruning_masks import masks, pruned
from dcformat_pruning.calibration.sensitivity import measure_sensitivity
from dcformat_pruning.calibration.torch_network import TorchNetwork

import dcformat
from dcformat import Model
from dcformat.graph import Graph, Linear


def test_the_weights_that_stay_make_up_for_those_that_go() -> None:
    """The outputs change less than with a mask alone, and weights outside the mask are zero."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((6, 16)).astype(np.float32)
    model = Model({"w": dcformat.from_dense("w", weights)}, Graph.sequential((16,), [Linear((0,), "w", None)]))
    network = TorchNetwork(model)
    x = rng.standard_normal((256, 16)) @ rng.standard_normal((16, 16)) + 2 * rng.standard_normal((256, 1))
    batch = [torch.from_numpy(x.astype(np.float32))]
    measure = Measure(network)
    measure.fit([network.run(batch)])
    layers = find_layers(network.graph, {"w": (6, 16)})
    found = measure_sensitivity(network, layers, [batch], measure, 4)
    allowed = masks(network, layers, found, 0.5, "obs")
    left = pruned(network, layers, found, allowed)["w"]
    mask = torch.from_numpy(allowed["w"])
    assert mask.sum() == 48 and not left[~mask].any()
    dense, made, masked = (batch[0] @ w.T for w in (torch.from_numpy(weights), left, mask * torch.from_numpy(weights)))
    assert (made - dense).square().sum() < 0.5 * (masked - dense).square().sum()
