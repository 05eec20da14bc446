"""The bounds to which the result of a layer is clipped: ReLU, ReLU6, and minima and maxima with constants."""

from __future__ import annotations

from math import inf, isnan
from typing import ClassVar

from dcformat.graph import Binary, Node, ReLU
from dcformat.graph.node import as_float32
from dcformat.records import record

#: The least and the largest result, which are float32.
Bounds = tuple[float, float]
UNBOUNDED: Bounds = (-inf, inf)


@record
class Bound(Node):
    """The operator of a layer that only clips its input, because no other layer can do that."""

    kind: ClassVar[str] = "bound"


def bounds_of(node: Node) -> Bounds | None:
    """Return the bounds to which a node clips its operand; None if it does something else."""
    if isinstance(node, ReLU):
        return 0.0, inf
    if not isinstance(node, Binary) or node.function not in ("minimum", "maximum") or len(node.values) != 1:
        return None
    (bound,) = (operand for operand in node.inputs if operand is not node.values[0])
    if not isinstance(bound, float) or isnan(bound):
        return None
    bound = as_float32(bound)
    return (-inf, bound) if node.function == "minimum" else (bound, inf)
