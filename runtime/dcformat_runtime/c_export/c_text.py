"""Writes constants, indices and loops of C."""

from __future__ import annotations

from collections.abc import Sequence
from math import isinf, prod

import numpy as np

from dcformat.errors import GraphError
from dcformat.graph import Shape
from dcformat_runtime.c_export.tensor_data import TensorFields


def pair(sizes: Sequence[int], fill: int = 1) -> tuple[int, int]:
    """Return the sizes of two spatial dimensions, of which the first may be missing."""
    return (fill, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])


def tensor_constant(fields: TensorFields) -> str:
    """Return the initializer of a ``tensor_t``."""
    first, coder = fields[:10], fields[10:]
    return "{" + ", ".join(map(str, first)) + f" CODER({', '.join(map(str, coder))})" + "}"


def float_constant(x: float) -> str:
    """Return a float32 as C."""
    if isinf(x):
        return "FLT_MAX" if x > 0 else "-FLT_MAX"
    text = f"{float(np.float32(x)):.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def repetition(shape: Shape, out: Shape, number: int) -> tuple[int, int]:
    """Return how an operand repeats: element i of the result reads element ``i // inner % count``."""
    padded = (1,) * (len(out) - len(shape)) + tuple(shape)
    wide = [axis for axis, size in enumerate(padded) if size > 1]
    if not wide:
        return 1, 1
    first, last = wide[0], wide[-1]
    if padded[first : last + 1] != tuple(out[first : last + 1]):
        raise GraphError(f"node {number}", got=f"operands {shape} and {out}", expected="dimensions side by side")
    return prod(out[last + 1 :]), prod(padded)


def index_text(inner: int, count: int, size: int) -> str:
    """Return the index, for element i of a result of `size` elements, of an operand that repeats (`repetition`)."""
    if count == 1:
        return "0"
    index = "i" if inner == 1 else f"i / {inner}"
    return index if inner * count == size else f"{index} % {count}"


def strides(shape: Shape) -> list[int]:
    """Return the distance of neighbours along each dimension."""
    return [prod(shape[axis + 1 :]) for axis in range(len(shape))]


def copy_loops(
    sizes: Sequence[int], source: tuple[str, int, Sequence[int]], target: tuple[str, int, Sequence[int]]
) -> list[str]:
    """Return loops that copy elements, as few and as long as possible."""
    dims: list[list[int]] = []
    for size, a, b in zip(sizes, source[2], target[2], strict=True):
        if size == 1:
            continue
        if dims and dims[-1][1] == size * a and dims[-1][2] == size * b:
            dims[-1] = [dims[-1][0] * size, a, b]
        else:
            dims.append([size, a, b])
    lines = []
    for depth, (size, _, _) in enumerate(dims):
        lines.append("    " * depth + f"for (index_t i{depth} = 0; i{depth} < {size}; i{depth}++) {{")

    def index(at: int, which: int) -> str:
        text = str(at)
        for depth, dim in enumerate(dims):
            factor = "" if abs(dim[which]) == 1 else f" * {abs(dim[which])}"
            text += f" {'-' if dim[which] < 0 else '+'} i{depth}{factor}"
        return text.removeprefix("0 + ")

    indent = "    " * len(dims)
    lines.append(f"{indent}({target[0]})[{index(target[1], 2)}] = ({source[0]})[{index(source[1], 1)}];")
    lines += ["    " * depth + "}" for depth in reversed(range(len(dims)))]
    return lines
