"""Operators that move elements, and the shapes for them that are computed in the file."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.interop.tflite.support import checked, kinds, random, run
from tests.interop.tflite.test_operators import close, one
from tests.interop.tflite.writer import Operator, Tensor, constant, model

Array = npt.NDArray[Any]
X = random((1, 4, 6, 3))


def conv() -> dict[str, Any]:
    return {"stride_h": 1, "stride_w": 1}


@pytest.mark.parametrize("shape", [[1, 24, 3], [1, -1], [2, 3, 4, 3], [1, 4, 1, 6, 3], [4, 6, 3], [72]])
def test_reshapes(shape: list[int]) -> None:
    close(run(one("RESHAPE", [X, constant(shape)], {}), X), X.reshape(shape))
    tensors = [Tensor(X.shape), Tensor(np.zeros(shape if -1 not in shape else (1, 72)).shape)]
    close(run(model(tensors, [Operator("RESHAPE", [0], [1], {"new_shape": shape})], [0], [1]), X), X.reshape(shape))


@pytest.mark.parametrize("order", [(0, 3, 1, 2), (0, 2, 1, 3), (0, 1, 2, 3), (3, 1, 0, 2)])
def test_transposes(order: tuple[int, ...]) -> None:
    close(run(one("TRANSPOSE", [X, constant(order)]), X), X.transpose(order))


def test_dimensions_of_size_1() -> None:
    x = random((1, 4, 1, 3))
    close(run(one("SQUEEZE", [x], {"squeeze_dims": [2]}), x), x[:, :, 0])
    close(run(one("SQUEEZE", [x], {"squeeze_dims": []}), x), x[0, :, 0])
    for axis in (1, -1, 4):
        close(run(one("EXPAND_DIMS", [x, constant(axis)]), x), np.expand_dims(x, axis))


@pytest.mark.parametrize("axis", [1, 3, -1])
def test_concatenations(axis: int) -> None:
    y = random((1, 4, 6, 3), 1)
    close(run(one("CONCATENATION", [X, y], {"axis": axis}), X, y), np.concatenate([X, y], axis))
    close(run(one("CONCATENATION", [X, constant(y)], {"axis": axis}), X), np.concatenate([X, y], axis))
    close(run(one("PACK", [X, y], {"axis": axis, "values_count": 2}), X, y), np.stack([X, y], axis))


def test_padding() -> None:
    pairs = [[0, 0], [1, 2], [0, 3], [1, 0]]
    close(run(one("PAD", [X, constant(pairs)]), X), np.pad(X, pairs))
    close(run(one("PADV2", [X, constant(pairs), constant(1.5)]), X), np.pad(X, pairs, constant_values=1.5))
    for mode, name in ((0, "reflect"), (1, "symmetric")):
        close(run(one("MIRROR_PAD", [X, constant(pairs)], {"mode": mode}), X), np.pad(X, pairs, name))  # type: ignore[call-overload]


def test_repeats() -> None:
    close(run(one("TILE", [X, constant([1, 2, 1, 3])]), X), np.tile(X, (1, 2, 1, 3)))
    x = random((1, 1, 3))
    close(run(one("BROADCAST_TO", [x, constant([1, 5, 3])]), x), np.broadcast_to(x, (1, 5, 3)))
    close(run(one("REVERSE_V2", [X, constant([2])]), X), X[:, :, ::-1])


@pytest.mark.parametrize(
    ("begin", "end", "step", "masks", "wanted"),
    [
        ([0, 1, 0, 0], [1, 3, 6, 3], [1, 1, 1, 1], {}, X[:, 1:3]),
        ([0, 0, -3, 0], [1, 4, 0, 3], [1, 2, 1, 1], {"end_mask": 4}, X[:, ::2, -3:]),
        ([0, 2, 0, 0], [0, 0, 0, 0], [1, 1, 2, 1], {"end_mask": 13, "shrink_axis_mask": 2}, X[:, 2, ::2]),
        ([0, 3, 0, 0], [1, -9, 6, 3], [1, -1, 1, 1], {}, X[:, ::-1]),
        ([0, -1], [1, 0], [1, 1], {"shrink_axis_mask": 3}, X[0, -1]),
        ([0, 0, 1], [0, 0, 3], [1, 1, 1], {"ellipsis_mask": 2, "begin_mask": 1, "end_mask": 1}, X[..., 1:3]),
        ([0, 0, 1], [0, 0, 3], [1, 1, 1], {"ellipsis_mask": 1, "new_axis_mask": 2}, X[..., np.newaxis, 1:3]),
        ([0, 0], [0, 0], [1, 1], {"begin_mask": 1, "end_mask": 1, "new_axis_mask": 2}, X[:, np.newaxis]),
    ],
)
def test_slices_with_steps(begin: Any, end: Any, step: Any, masks: dict[str, int], wanted: Array) -> None:
    data = one("STRIDED_SLICE", [X, constant(begin), constant(end), constant(step)], masks)
    close(run(data, X), wanted)


def test_parts() -> None:
    close(run(one("SLICE", [X, constant([0, 1, 2, 0]), constant([1, 2, -1, 3])]), X), X[:, 1:3, 2:])
    for part, wanted in zip(
        run(one("SPLIT", [constant(2), X], {"num_splits": 3}, 3), X), np.split(X, 3, 2), strict=True
    ):
        close(part, wanted)
    sizes = one("SPLIT_V", [X, constant([1, 3]), constant(1)], {"num_splits": 2}, 2)
    for part, wanted in zip(run(sizes, X), np.split(X, [1], 1), strict=True):
        close(part, wanted)
    for part, wanted in zip(run(one("UNPACK", [X], {"axis": 3, "num": 3}, 3), X), np.moveaxis(X, 3, 0), strict=True):
        close(part, wanted)


def test_choices() -> None:
    close(run(one("GATHER", [X, constant([2, 0])], {"axis": 3}), X), X[..., [2, 0]])
    close(run(one("GATHER", [X, constant(2)], {"axis": 1}), X), X[:, 2])
    places, table = np.array([[3, 0, 4]], np.int32), random((5, 2), 1)
    close(run(one("GATHER", [constant(table), places], {"axis": 0}), places), table[places])
    places = places[0]
    close(run(one("EMBEDDING_LOOKUP", [places, constant(table)]), places), table[places])


@pytest.mark.parametrize("size", [(8, 12), (3, 9)])
@pytest.mark.parametrize("positions", [{}, {"align_corners": True}, {"half_pixel_centers": True}])
@pytest.mark.parametrize("op_type", ["RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"])
def test_interpolation(op_type: str, positions: dict[str, bool], size: tuple[int, int]) -> None:
    found = run(one(op_type, [X, constant(size)], positions), X)
    wanted = np.stack([_resized(X[0, ..., c], size, op_type, positions) for c in range(3)], -1)[None]
    close(found, wanted)


def _resized(x: Array, size: tuple[int, int], op_type: str, positions: dict[str, bool]) -> Array:
    for axis in range(2):
        old, new = x.shape[axis], size[axis]
        corners, half = positions.get("align_corners"), positions.get("half_pixel_centers")
        scale = np.float32((old - 1) / (new - 1) if corners else old / new)
        places = np.arange(new, dtype=np.float32) * scale
        if op_type == "RESIZE_NEAREST_NEIGHBOR":
            places = (
                (np.arange(new) + np.float32(0.5)) * scale if half else np.floor(places + 0.5) if corners else places
            )
            x = np.take(x, np.clip(np.floor(places).astype(int), 0, old - 1), axis)
            continue
        places = places + scale / 2 - 0.5 if half else places
        low = np.floor(places).astype(int)
        part = (places - low).reshape([-1, 1] if axis == 0 else [1, -1])
        first, second = (np.take(x, np.clip(low + i, 0, old - 1), axis) for i in range(2))
        x = first * (1 - part) + second * part
    return x


def test_blocks() -> None:
    x = random((1, 4, 6, 8))
    deep = x.reshape(1, 2, 2, 3, 2, 8).transpose(0, 1, 3, 2, 4, 5).reshape(1, 2, 3, 32)
    close(run(one("SPACE_TO_DEPTH", [x], {"block_size": 2}), x), deep)
    close(run(one("DEPTH_TO_SPACE", [deep], {"block_size": 2}), deep), x)


def test_a_dilated_convolution_by_blocks_of_the_batch() -> None:
    weight = random((5, 3, 3, 3), 1)
    tensors = [
        Tensor(X.shape), constant([2, 2]), constant([[2, 2], [2, 2]]), Tensor((4, 4, 5, 3)), constant(weight),
        constant(np.zeros(5, np.float32)), Tensor((4, 2, 3, 5)), constant([[0, 0], [0, 0]]), Tensor((1, 4, 6, 5)),
    ]  # fmt: skip
    operators = [
        Operator("SPACE_TO_BATCH_ND", [0, 1, 2], [3]), Operator("CONV_2D", [3, 4, 5], [6], {**conv(), "padding": 1}),
        Operator("BATCH_TO_SPACE_ND", [6, 1, 7], [8]),
    ]  # fmt: skip
    direct = one(
        "CONV_2D",
        [X, constant(weight), constant(np.zeros(5, np.float32))],
        {**conv(), "dilation_h": 2, "dilation_w": 2},
    )
    close(run(model(tensors, operators, [0], [8]), X), run(direct, X))


@pytest.mark.parametrize(
    ("shape", "block", "edges"),
    [((1, 7, 3), [3], [[2, 0]]), ((1, 4, 6, 2), [2, 3], [[0, 0], [3, 0]]), ((1, 4, 6, 2), [2, 1], [[1, 3], [0, 0]])],
)
def test_blocks_of_the_batch(shape: tuple[int, ...], block: list[int], edges: list[list[int]]) -> None:
    x, count = random(shape), len(block)
    padded = np.pad(x, [(0, 0), *((a, b) for a, b in edges), *[(0, 0)] * (len(shape) - count - 1)])
    starts = np.ndindex(*block)
    blocks = [padded[(slice(None), *(slice(s, None, n) for s, n in zip(at, block, strict=True)))] for at in starts]
    wanted = np.concatenate(blocks, 0)
    close(run(one("SPACE_TO_BATCH_ND", [x, constant(block), constant(edges)]), x), wanted)
    back = one("BATCH_TO_SPACE_ND", [wanted, constant(block), constant(edges)])
    close(run(back, wanted), x)


def test_shapes_that_the_file_computes() -> None:
    """A flattening whose batch is open, as Keras writes it."""
    tensors = [
        Tensor((1, 4, 6, 3), signature=(-1, 4, 6, 3)), Tensor((4,), dtype="int32"), constant([0]), constant([1]),
        constant([1]), Tensor((), dtype="int32"), constant(-1), Tensor((2,), dtype="int32"), Tensor((1, 72)),
    ]  # fmt: skip
    operators = [
        Operator("SHAPE", [0], [1], {"out_type": 2}),
        Operator("STRIDED_SLICE", [1, 2, 3, 4], [5], {"shrink_axis_mask": 1}),
        Operator("PACK", [5, 6], [7], {"axis": 0, "values_count": 2}), Operator("RESHAPE", [0, 7], [8]),
    ]  # fmt: skip
    data = model(tensors, operators, [0], [8])
    x = random((5, 4, 6, 3))
    close(run(data, x), x.reshape(5, 72))
    assert kinds(checked(data)) == ["flatten"]


def test_constants_that_operators_make() -> None:
    tensors = [Tensor((1, 3)), constant([1, 3]), constant(2.5), Tensor((1, 3)), Tensor((1, 3))]
    operators = [Operator("FILL", [1, 2], [3]), Operator("MUL", [0, 3], [4])]
    x = random((1, 3))
    close(run(model(tensors, operators, [0], [4]), x), x * 2.5)
    tensors = [Tensor((1, 3)), constant(0.0), constant(6.0), constant(2.0), Tensor((3,)), Tensor((1, 3))]
    operators = [Operator("RANGE", [1, 2, 3], [4]), Operator("ADD", [0, 4], [5])]
    close(run(model(tensors, operators, [0], [5]), x), x + np.array([0, 2, 4]))
