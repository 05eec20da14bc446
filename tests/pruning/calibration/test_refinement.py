"""Gradient steps towards the outputs of another network."""

from __future__ import annotations

import numpy as np
import torch
from dcformat_pruning.calibration.measures import Measure
from dcformat_pruning.calibration.refinement import Teacher
from dcformat_pruning.calibration.torch_network import TorchNetwork

import dcformat
from dcformat import Model
from dcformat.graph import Graph, Linear, ReLU

torch.set_num_threads(1)
RNG = np.random.default_rng(0)
SHAPES = {"a": (12, 8), "b": (12,), "c": (4, 12)}
BATCHES = [[torch.from_numpy(RNG.standard_normal((16, 8)).astype(np.float32))] for _ in range(3)]


def teacher() -> tuple[TorchNetwork, Measure, Teacher]:
    tensors = {
        name: dcformat.from_dense(name, RNG.standard_normal(shape).astype(np.float32)) for name, shape in SHAPES.items()
    }
    graph = Graph.sequential((8,), [Linear((0,), "a", "b"), ReLU((1,)), Linear((2,), "c")])
    network = TorchNetwork(Model(tensors, graph))
    measure = Measure(network)
    measure.fit([network.run(batch) for batch in BATCHES])
    return network, measure, Teacher(network, BATCHES, measure)


def change(network: TorchNetwork, measure: Measure, tensors: dict[str, torch.Tensor]) -> float:
    other = network.with_tensors(tensors)
    return sum(measure.change(network.run(batch), other.run(batch)) for batch in BATCHES)


def test_the_weights_that_are_left_make_up_for_pruned_ones() -> None:
    network, measure, found = teacher()
    pruned = {name: tensor * (tensor.abs() > tensor.abs().median()) for name, tensor in network.tensors.items()}
    refined = found.refine(pruned, 120)
    assert change(network, measure, refined) < 0.5 * change(network, measure, pruned)
    assert all(not refined[name][pruned[name] == 0].any() for name in pruned)


def test_values_on_a_grid_stay_there() -> None:
    network, measure, found = teacher()
    coarse = {name: torch.round(tensor / 0.5) * 0.5 for name, tensor in network.tensors.items()}
    refined = found.refine(coarse, 150, dict.fromkeys(coarse, 0.5))
    assert change(network, measure, refined) < 0.9 * change(network, measure, coarse)
    for tensor in refined.values():
        assert torch.equal(tensor / 0.5, torch.round(tensor / 0.5))


def test_tensors_of_zeros_are_left_out() -> None:
    network, _, found = teacher()
    refined = found.refine({**network.tensors, "b": torch.zeros(12)}, 2)
    assert not refined["b"].any() and torch.isfinite(refined["a"]).all()
