"""Altered models are either imported or refused by name, for any alteration."""

from __future__ import annotations

import random as randomness
from collections.abc import Iterator

import numpy as np
import pytest
from dcformat_interop import UnfitError, import_onnx

from tests.interop.onnx.models import INT64, model, node, random


def models() -> Iterator[bytes]:
    """Yield small models with many kinds of operators."""
    yield model(
        [node("Conv", ["x", "w"], ["a"], pads=[1, 1, 0, 0]), node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2]),
         node("Flatten", ["b"], ["c"]), node("Gemm", ["c", "v"], ["d"], transB=1), node("Softmax", ["d"], ["y"])],
        {"x": ["n", 2, 6, 6]}, {"y": ["n", 4]}, {"w": random(3, 2, 3, 3), "v": random(4, 48)},
    )  # fmt: skip
    yield model(
        [node("Gather", ["e", "x"], ["a"]), node("Transpose", ["a"], ["b"], perm=[1, 0, 2]),
         node("LSTM", ["b", "w", "r"], ["s", "h"], hidden_size=3), node("Squeeze", ["h", "zero"], ["y"])],
        {"x": (INT64, ["n", 5])}, {"y": ["n", 3]},
        {"e": random(9, 4), "w": random(1, 12, 4), "r": random(1, 12, 3), "zero": np.array([0])},
    )  # fmt: skip
    yield model(
        [node("Shape", ["x"], ["s"]), node("Slice", ["s", "zero", "one"], ["n"]),
         node("Concat", ["n", "rest"], ["t"], axis=0), node("Reshape", ["x", "t"], ["a"]),
         node("Einsum", ["a", "w"], ["b"], equation="bij,jk->bik"), node("Pad", ["b", "pads"], ["c"]),
         node("Resize", ["c", "", "scales"], ["d"]), node("Expand", ["zero", "one"], ["g"]),
         node("ScatterND", ["d", "places", "new"], ["f"]), node("ReduceMean", ["f", "one"], ["y"])],
        {"x": [1, 6, 4]}, {"y": [1, 1, 9]},
        {"zero": np.array([0]), "one": np.array([1]), "rest": np.array([3, 8]), "w": random(8, 4),
         "pads": np.array([0, 0, 0, 0, 0, 2]), "scales": np.array([1, 1, 1.5]), "places": np.array([[0]]),
         "new": random(1, 3, 9)},
    )  # fmt: skip


def altered(data: bytes, chance: randomness.Random) -> bytes:
    """Return bytes with a few of them replaced, left out, or added."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 3))):
        place = chance.randrange(len(out))
        kind = chance.random()
        if kind < 0.6:
            out[place] = chance.randrange(256)
        elif kind < 0.8:
            del out[place : place + chance.randrange(1, 4)]
        else:
            out[place:place] = chance.randbytes(chance.randrange(1, 4))
    return bytes(out)


@pytest.mark.parametrize("data", list(models()), ids=["image", "sequence", "shapes"])
def test_nothing_but_a_refusal_in_one_line(data: bytes) -> None:
    import_onnx(data)
    refused = 0
    for seed in range(400):
        try:
            import_onnx(altered(data, randomness.Random(seed)), max_memory=1 << 26)
        except UnfitError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 200
