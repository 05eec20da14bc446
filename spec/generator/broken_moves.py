"""Invalid vectors of operators that only move elements: section 5.4 of the specification."""

from __future__ import annotations

from collections.abc import Iterator

from generator.assembler import f32
from generator.graph_bytes import INFINITY, NAN, SPELLED, Op, graph, integer, op

#: The name of a graph, the code of the error, the requirement, and the bytes.
Case = tuple[str, str, str, bytes]

#: The shape of an image.
IMAGE = (2, 6, 6)


def moves() -> Iterator[Case]:
    """Section 5.4: Reshape, Transpose, Slice, Pad, Tile and Resize."""
    yield "reshape_elements", "E09", "G6", graph((5,), op(Op.RESHAPE | SPELLED, 2, 2, 3))
    yield "reshape_to_one", "E11", "G8", graph(IMAGE, op(Op.RESHAPE | SPELLED, 1, 72))
    yield "reshape_0", "E11", "G8", graph((5,), op(Op.RESHAPE | SPELLED, 2, 5, 0))
    yield "transpose_rank", "E11", "G8", graph(IMAGE, op(Op.TRANSPOSE | SPELLED, 2, 1, 0))
    yield "transpose_twice", "E11", "G8", graph(IMAGE, op(Op.TRANSPOSE | SPELLED, 3, 1, 0, 1))
    yield "transpose_beyond", "E11", "G8", graph(IMAGE, op(Op.TRANSPOSE | SPELLED, 3, 1, 0, 3))
    for name, code, ids, axis, start, size, step in (
        ("axis", "E11", "G8", 2, 0, 1, 1), ("size_0", "E11", "G8", 1, 0, 0, 1), ("step_0", "E11", "G8", 1, 0, 1, 0),
        ("start", "E09", "G6", 1, 9, 1, 1), ("end", "E09", "G6", 1, 0, 10, 1), ("steps", "E09", "G6", 1, 0, 4, 3),
        ("backwards", "E09", "G6", 1, 8, 10, -1), ("into_start", "E09", "G6", 1, 9, 2, -1),
    ):  # fmt: skip
        yield f"slice_{name}", code, ids, graph((2, 9), op(Op.SLICE | SPELLED, axis, start, size, integer(step)))
    zero = f32(0.0)
    yield "pad_rank", "E11", "G8", graph((5,), op(Op.PAD | SPELLED, 2, 1, 1, 1, 1, 0, zero))
    yield "pad_mode_3", "E08", "G2", graph((5,), op(Op.PAD | SPELLED, 1, 1, 1, 3, zero))
    yield "pad_reflect_before", "E09", "G6", graph((5,), op(Op.PAD | SPELLED, 1, 5, 0, 2, zero))
    yield "pad_reflect_after", "E09", "G6", graph((5,), op(Op.PAD | SPELLED, 1, 0, 5, 2, zero))
    yield "pad_edge_value", "E11", "G8", graph((5,), op(Op.PAD | SPELLED, 1, 1, 1, 1, f32(1.0)))
    yield "pad_reflect_negative_zero", "E11", "G8", graph((5,), op(Op.PAD | SPELLED, 1, 1, 1, 2, f32(-0.0)))
    yield "pad_nan", "E08", "G12", graph((5,), op(Op.PAD | SPELLED, 1, 1, 1, 0, NAN))
    yield "pad_too_large", "E09", "G6", graph((1,), op(Op.PAD | SPELLED, 1, 1 << 40, 0, 0, zero))
    yield "tile_rank", "E11", "G8", graph((5,), op(Op.TILE | SPELLED, 2, 1, 1))
    yield "tile_0", "E11", "G8", graph((5,), op(Op.TILE | SPELLED, 1, 0))
    yield "tile_too_large", "E09", "G6", graph((1 << 25,), op(Op.TILE | SPELLED, 1, 1 << 16))

    def resize(count: int, size: tuple[int, ...], scale: bytes, mode: int, rounding: int = 2) -> bytes:
        return graph((3, 4), op(Op.RESIZE | SPELLED, count, *size, scale, mode, 0, rounding))

    yield "resize_rank", "E09", "G6", resize(3, (1, 2, 3), f32(1.0, 1.0, 1.0), 0)
    yield "resize_of_none", "E09", "G6", resize(0, (), b"", 0)
    yield "resize_0", "E11", "G8", resize(1, (0,), f32(1.0), 0)
    yield "resize_scale_0", "E11", "G8", resize(1, (5,), f32(0.0), 0)
    yield "resize_scale_infinite", "E11", "G8", resize(1, (5,), INFINITY, 0)
    yield "resize_scale_nan", "E08", "G12", resize(1, (5,), NAN, 0)
    yield "resize_mode_2", "E08", "G2", resize(1, (5,), f32(1.0), 2)
    yield "resize_rounding_4", "E08", "G2", resize(1, (5,), f32(1.0), 0, 4)
    yield "resize_rounding_of_linear", "E11", "G8", resize(1, (5,), f32(1.0), 1, 0)
