"""Keeps the table of ONNX functions that PyTorch's exporter otherwise makes from their sources for every program.

Making it takes as long as exporting a small network. This uses private parts of PyTorch; where a version lacks them,
its exporter makes the table every time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

_kept: dict[tuple[Any, ...], Any] = {}


@contextmanager
def kept_table() -> Iterator[None]:
    """Let exports in this block start from copies of one table, to which each adds functions of its own."""
    table = _class_of_tables()
    if table is None:
        yield
        return
    make = table.__dict__["from_torchlib"]

    def copied(*arguments: Any, **named: Any) -> Any:
        key = (*arguments, *sorted(named.items()))
        if key not in _kept:
            _kept[key] = make.__get__(None, table)(*arguments, **named)
        made = copy(_kept[key])
        made.functions = {name: list(functions) for name, functions in made.functions.items()}
        return made

    table.from_torchlib = staticmethod(copied)
    try:
        yield
    finally:
        table.from_torchlib = make


def _class_of_tables() -> Any:
    """Return PyTorch's class of such tables, or None if this version has none that can be copied."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:
        return None
    known = "from_torchlib" in vars(ONNXRegistry) and isinstance(getattr(ONNXRegistry(), "functions", None), dict)
    return ONNXRegistry if known else None
