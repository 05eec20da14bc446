"""The operators that treat each element alike, and the layer that computes several of them in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from dcformat.graph import Add, Binary, Node, Quantize, ReLU, Requantize, Shape, Unary, Where
from dcformat.graph.elementwise import BINARY, UNARY
from dcformat.records import record

#: Powers that are products: how many times the first operand is a factor.
POWERS = {2.0: 2, 3.0: 3}
#: Functions whose results depend on the C library.
_FOREIGN = ("sin", "cos", "pow")


@record
class Elementwise(Node):
    """The operator of a layer that computes elementwise `nodes`, the last of which makes its result.

    The nodes number the values that the layer reads from 0 on, and then their results.
    """

    nodes: tuple[Node, ...]
    kind: ClassVar[str] = "elementwise"


def is_elementwise(node: Node) -> bool:
    """Return whether compiled kernels compute a node element by element."""
    match node:
        case Binary(function="pow"):
            base, exponent = node.inputs
            return isinstance(exponent, float) and exponent in POWERS and not isinstance(base, float)
        case Unary():
            return node.function in UNARY and node.function not in _FOREIGN
        case Binary():
            return node.function in BINARY
    return isinstance(node, ReLU | Add | Where | Quantize | Requantize)


def fits_layers(node: Node, inputs: Sequence[Shape], out: Shape) -> bool:
    """Return whether a layer computes an elementwise node of values of these shapes.

    The values have the shape of the result, or one element for each channel of an image. None of them is a tensor.
    """
    channels = (out[0], 1, 1) if len(out) == 3 else out
    return is_elementwise(node) and not node.tensors and bool(inputs) and set(inputs) <= {out, channels}
