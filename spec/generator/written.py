"""Vectors that the package writes in each mode, like the files of users."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[2] / "runtime"))

from dcformat_runtime.self_testing import with_self_test
from reference_reader import Tensor

import dcformat
from dcformat import graph as g
from dcformat.dense import from_dense
from dcformat.model import Extension, Model
from generator.samples import Valid

Array = npt.NDArray[np.float32]
CODEBOOK = [-0.75, -0.5, -0.3125, -0.125, 0.1875, 0.25, 0.4375, 0.875]


def pruned(seed: int, *shape: int, share: float = 0.3) -> Array:
    """Return a pruned and shared weight; Python's random generator gives the same numbers in every version."""
    source = random.Random(seed)
    size = int(np.prod(shape))
    values = [source.choice(CODEBOOK) if source.random() < share else 0.0 for _ in range(size)]
    return np.array(values, np.float32).reshape(shape)


def network() -> tuple[Model, dict[str, Array]]:
    """Return a small convolutional network with everything a file can hold, and its tensors."""
    biases = random.Random(5)
    arrays = {
        "conv1.weight": pruned(1, 4, 1, 3, 3, share=0.8),
        "conv1.bias": np.array([biases.gauss(0, 0.1) for _ in range(4)], np.float32),
        "conv2.weight": pruned(2, 6, 2, 3, 3, share=0.5),
        "fc.weight": pruned(3, 10, 54, share=0.4),
        "fc.bias": np.array([round(biases.gauss(0, 20)) / 64 for _ in range(10)], np.float32),
    }
    nodes = (
        g.Conv((0,), "conv1.weight", "conv1.bias", padding=(1, 1), padding_end=(1, 1)),
        g.ReLU((1,)),
        g.MaxPool((2,), (2, 2), (2, 2)),
        g.Conv((3,), "conv2.weight", padding=(1, 1), padding_end=(1, 1), groups=2),
        g.AvgPool((4,), (2, 2), (2, 2), ceil_mode=True, count_include_pad=False),
        g.Flatten((5,)),
        g.Linear((6,), "fc.weight", "fc.bias"),
    )
    graph = g.Graph.sequential((1, 12, 12), nodes, g.Preprocessing((0.1307,), (0.3081,)))
    model = Model(
        {name: from_dense(name, array) for name, array in arrays.items()},
        graph,
        tuple("0123456789"),
        {"recipe": "none", "source": "made up"},
        extensions=(Extension(72, b"kept as it is"),),
    )
    return with_self_test(model), arrays


def mixture() -> tuple[Model, dict[str, npt.NDArray[np.generic]]]:
    """Return tensors of every dtype, nearly dense, sparse, regular along columns, and without repetition."""
    source = np.random.Generator(np.random.PCG64(7))
    columns = np.where(np.arange(48) % 6 == 0, pruned(8, 40, 48, share=1), 0).astype(np.float32)
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "columns": columns,
        "nearly_dense": pruned(9, 20, 30, share=0.95),
        "rare": pruned(10, 40, 100, share=0.01),
        "distinct": np.where(pruned(11, 12, 12) != 0, source.normal(size=(12, 12)), 0).astype(np.float32),
        "half": (pruned(12, 9, 9) * 3).astype(np.float16),
        "brain": (pruned(13, 9, 9).view(np.uint32) >> 16).astype(np.uint16),
        "whole": np.round(pruned(14, 9, 9) * 100).astype(np.int8),
        "vector": source.normal(size=40).astype(np.float32),
        "empty": np.zeros((0, 7), np.float32),
        "scalar": np.array(-0.0, np.float32),
        "zeros": np.zeros((3, 3), np.float16),
    }
    kinds = {"half": "float16", "zeros": "float16", "brain": "bfloat16", "whole": "int8"}
    tensors = {
        name: from_dense(name, array, kinds.get(name, "float32"), 0.0078125 if name == "whole" else 1.0, exact=True)
        for name, array in arrays.items()
    }
    return Model(tensors), arrays


def valid_written() -> Iterator[Valid]:
    """Yield the same networks in each mode."""
    for name, (model, arrays) in (("network", network()), ("mixture", mixture())):
        expected = {key: plain(model, key, array) for key, array in arrays.items()}
        for mode in ("fast", "small", "tiny"):
            yield (
                f"written_{name}_{mode}",
                "S1" if name == "network" else "",
                dcformat.dumps(model, mode=mode),
                expected,
            )


def valid_models() -> Iterator[Valid]:
    """Yield the networks of `models/` unchanged, as examples of users' files."""
    for path in sorted((Path(__file__).parents[2] / "models").glob("*.dcf")):
        model = dcformat.load(str(path))
        arrays = {name: tensor.to_dense() for name, tensor in model.tensors.items()}
        expected = {name: plain(model, name, array) for name, array in arrays.items()}
        yield f"model_{path.stem.replace('-', '_')}", "", path.read_bytes(), expected


def plain(model: Model, name: str, array: npt.NDArray[np.generic]) -> Tensor:
    """Return an array as a dense tensor of the reference decoder."""
    tensor, size = model.tensors[name], array.itemsize
    values = np.ascontiguousarray(array).reshape(-1).view(f"<u{size}").tolist()
    return Tensor(array.shape, tensor.dtype, size, tensor.scale, False, None, values)
