"""The networks to time: LeNets with the paper's densities or with very few weights, image networks, or any file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from image_networks import NETWORKS

import dcformat
from dcformat import Model, from_dense
from dcformat.architectures import ARCHITECTURES
from dcformat.datasets import load_split
from dcformat.graph import Preprocessing

#: The share of weights that each layer keeps: Han et al. 2015 (tables 2 and 3), and 2 % (10 % of convolutions).
DENSITIES = {
    ("lenet-300-100", "han"): (0.08, 0.09, 0.26),
    ("lenet-300-100", "vs"): (0.02, 0.02, 0.02),
    ("lenet-5", "han"): (0.66, 0.12, 0.08, 0.19),
    ("lenet-5", "vs"): (0.10, 0.10, 0.02, 0.02),
}


def synthetic(name: str, densities: str) -> Model:
    """Return an architecture with normally distributed weights at random positions and 32 shared values per layer."""
    random, architecture = np.random.default_rng(1), ARCHITECTURES[name]
    tensors, kept = {}, iter(DENSITIES[name, densities])
    for tensor, shape in architecture.shapes.items():
        if tensor.endswith(".bias"):
            values = random.normal(0, 0.1, shape)
        else:
            fan_in, share = int(np.prod(shape[1:])), next(kept)
            codebook = random.normal(0, np.sqrt(2 / (fan_in * share)), 32)
            values = np.where(random.random(shape) < share, codebook[random.integers(0, 32, shape)], 0)
        tensors[tensor] = from_dense(tensor, values.astype(np.float32))
    return Model(tensors, architecture.build(list(tensors), Preprocessing((0.0,), (1.0,))))


def load(name: str) -> Model:
    """Return `synthetic`'s model for ``ARCHITECTURE/DENSITIES``, ``NETWORK/SHARE`` with all but a share of the weights
    pruned, or else a file's model.
    """
    architecture, _, densities = name.partition("/")
    if architecture in NETWORKS:
        return NETWORKS[architecture](float(densities))
    return synthetic(architecture, densities) if (architecture, densities) in DENSITIES else dcformat.load(Path(name))


def inputs(model: Model, batch: int) -> list[npt.NDArray[np.float32]]:
    """Return several batches of inputs: MNIST's test images in the network's form, or noise for other input shapes."""
    assert model.graph is not None
    shape, random, count = model.graph.input_shape, np.random.default_rng(batch), 64 if batch == 1 else 8
    if np.prod(shape) != 784:
        return [random.standard_normal((batch, *shape), np.float32) for _ in range(min(count, 8))]
    pixels = load_split("test").images.reshape(-1, 784).astype(np.float32) / 255
    if model.graph.preprocessing is not None:
        pixels = (pixels - np.float32(model.graph.preprocessing.mean[0])) / np.float32(model.graph.preprocessing.std[0])
    picked = random.integers(0, len(pixels), (count, batch))
    return [np.ascontiguousarray(pixels[rows].reshape(batch, *shape)) for rows in picked]
