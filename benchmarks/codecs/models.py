"""The models on which the coders are compared: two real LeNets, Song Han's SqueezeNet and two synthetic ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from dcformat_interop import match, read_checkpoint, read_deep_compression_net

import dcformat
from dcformat.architectures import ARCHITECTURES
from dcformat.graph import Preprocessing
from dcformat.model import Model, Tensor

#: The layers of AlexNet as Deep Compression pruned it (Han et al. 2015, table 4): name, shape, density, clusters.
ALEXNET = (
    ("conv1", (96, 3, 11, 11), 0.84, 255),
    ("conv2", (256, 48, 5, 5), 0.38, 255),
    ("conv3", (384, 256, 3, 3), 0.35, 255),
    ("conv4", (384, 192, 3, 3), 0.37, 255),
    ("conv5", (256, 192, 3, 3), 0.37, 255),
    ("fc6", (4096, 9216), 0.09, 32),
    ("fc7", (4096, 4096), 0.09, 32),
    ("fc8", (1000, 4096), 0.25, 32),
)
FC6 = (("fc6", (4096, 9216), 0.09, 32),)


def checkpoint(path: Path, architecture: str) -> Model:
    """Return a checkpoint's tensors in an architecture's graph, as `dcformat pack` does."""
    known = ARCHITECTURES[architecture]
    tensors = read_deep_compression_net(path, known) if path.suffix == ".net" else read_checkpoint(path).tensors
    names = match(path, known, tensors)
    held = {n: dcformat.from_dense(n, tensors[n].values, tensors[n].dtype, tensors[n].scale) for n in names}
    rule = Preprocessing((0.1307,), (0.3081,)) if path.suffix != ".net" else None
    return Model(held, known.build(names, rule))


def cluster_probabilities(clusters: int) -> npt.NDArray[np.float64]:
    """Return the probability of each of evenly spaced clusters of a pruned layer's weights.

    Weights that survive pruning by magnitude form two exponential tails with nothing between them; for 32 clusters the
    entropy is 4.29 bits, as in the first layer of a trained LeNet-300-100.
    """
    half = np.arange(clusters // 2)
    tail = np.exp(-half / (clusters * 0.1224))
    p = np.concatenate((tail[::-1], tail, np.zeros(clusters % 2)))
    return p / p.sum()


def synthetic(layers: tuple[tuple[str, tuple[int, ...], float, int], ...], seed: int) -> Model:
    """Return layers whose positions are independent and whose codes are drawn from `cluster_probabilities`."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, Tensor] = {}
    for name, shape, density, clusters in layers:
        columns = int(np.prod(shape[1:]))
        threshold = np.cumsum(cluster_probabilities(clusters))[:-1].astype(np.float32)
        codebook = np.linspace(-0.2, 0.2, clusters + 1, dtype=np.float32)
        codebook = codebook[codebook != 0][:clusters]
        indices, codes, counts = [], [], []
        for start in range(0, shape[0], 256):
            mask = rng.random((min(256, shape[0] - start), columns), np.float32) < density
            counts.append(mask.sum(axis=1))
            indices.append(np.nonzero(mask)[1].astype(np.int32))
            codes.append(np.searchsorted(threshold, rng.random(len(indices[-1]), np.float32)).astype(np.uint8))
        indptr = np.concatenate(([0], np.cumsum(np.concatenate(counts)))).astype(np.int64)
        data, index = np.concatenate(codes), np.concatenate(indices)
        tensors[f"{name}.weight"] = Tensor(f"{name}.weight", shape, "float32", data, codebook, indptr, index)
        bias = rng.normal(0, 0.1, shape[0]).astype(np.float32)
        tensors[f"{name}.bias"] = Tensor(f"{name}.bias", (shape[0],), "float32", bias)
    return Model(tensors)


def entropy_bytes(model: Model) -> float:
    """Return the order-0 entropy of gaps and codes in a model's sparse tensors, with everything else as raw floats."""
    total = 0.0
    for tensor in model.tensors.values():
        if tensor.indptr is None or tensor.indices is None or tensor.codebook is None:
            total += tensor.nbytes
            continue
        rows = np.repeat(np.arange(tensor.rows), np.diff(tensor.indptr))
        gaps = np.diff(rows * tensor.columns + tensor.indices, prepend=-1)
        total += (_entropy(gaps) + _entropy(tensor.data)) * tensor.nnz / 8 + tensor.codebook.nbytes
    return total


def _entropy(symbols: npt.NDArray[np.int64]) -> float:
    counts = np.bincount(symbols)
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def models(reference: Path, han: Path) -> dict[str, Callable[[], Model]]:
    """Return a maker for each name; `reference` is the folder with the two LeNets, `han` the SqueezeNet file."""
    return {
        "lenet300_k16": lambda: checkpoint(reference / "lenet300_k16.npz", "lenet-300-100"),
        "lenet5_k255_k32": lambda: checkpoint(reference / "lenet5_k255_k32.npz", "lenet-5"),
        "squeezenet (Han)": lambda: checkpoint(han, "squeezenet"),
        "fc6-like iid": lambda: synthetic(FC6, 1),
        "AlexNet-like iid": lambda: synthetic(ALEXNET, 3),
    }
