"""Inputs of an ONNX model: dtypes, shapes, which dimension is the batch, and inputs that are fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.graph.graph import PORT_DTYPES
from dcformat_interop.refusals import UnfitError

Array = npt.NDArray[Any]

#: The text that some exporters write for an open dimension without a name.
_NAMELESS = ("?", "None", "-1")


@dataclass(frozen=True, slots=True)
class InputPlan:
    """An input: its shape with a batch of 1, and the dimension that is the batch.

    `symbol` is the name of the batch if the model leaves its size open.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    batch_axis: int | None = None
    symbol: str | None = None


def plan_inputs(path: str, inputs: Sequence[Any], dims: Mapping[str, int], max_memory: int | None) -> list[InputPlan]:
    """Return the plan of each input.

    Parameters
    ----------
    path : str
        The model, for errors.
    inputs : sequence of ValueInfoProto
    dims : mapping of str to int
        Sizes of dimensions that the model leaves open, by their names, or as ``INPUT.AXIS``.
    max_memory : int or None
        Maximum number of bytes that an input may take.

    Raises
    ------
    UnfitError
        There is no input; an input is no array, is too large, has a dtype that a network cannot take, or an open
        dimension other than the batch; or a name in `dims` is not that of an open dimension.
    """
    open_dims: dict[str, None] = {}
    given = [_dims(path, value, open_dims) for value in inputs]
    for name in dims:
        if name not in open_dims:
            known = ", ".join(open_dims) or "none"
            raise UnfitError(path, f"a dimension that the model leaves open ({known})", repr(name), "--dim")
    fixed = [
        [_size(f"{value.name}.{axis}", size, dims) for axis, size in enumerate(sizes)]
        for value, sizes in zip(inputs, given, strict=True)
    ]
    axes = _batch_axes(fixed)
    plans, left = [], dict[str, str]()
    for value, sizes, axis in zip(inputs, fixed, axes, strict=True):
        shape = tuple(1 if place == axis else size for place, size in enumerate(sizes))
        for place, size in enumerate(shape):
            if isinstance(size, str):
                left[size or f"{value.name}.{place}"] = value.name
        symbol = None if axis is None else str(sizes[axis])
        plans.append((value, shape, axis, symbol))
    if left:
        first = next(iter(left))
        batch = next((f"{v.name!r} dimension {a}" for v, _, a, s in plans if a is not None), "")
        named = ", ".join(f"{name!r} of input {value!r}" for name, value in left.items())
        besides = f" besides the batch, {batch}" if batch else ""
        expected = f"dimensions of known size{besides}: give --dim {first}=SIZE"
        raise UnfitError(path, expected, named)
    if not plans:
        raise UnfitError(path, "a network with an input", "none that is not constant")
    made = [
        InputPlan(value.name, _dtype(path, value), tuple(map(int, shape)), axis, symbol)
        for value, shape, axis, symbol in plans
    ]
    for plan in made:
        if max_memory is not None and 4 * prod(plan.shape) > max_memory:
            expected = f"an input of at most {max_memory:,} bytes (max_memory)"
            raise UnfitError(path, expected, f"shape {plan.shape}", f"input {plan.name!r}")
    return made


def _dims(path: str, value: Any, open_dims: dict[str, None]) -> list[int | str]:
    """Return the sizes of an input, an open one by its name; the name is empty if the model gives none."""
    if not isinstance(value.name, str):
        raise UnfitError(path, "names in UTF-8", "other bytes", "inputs")
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise UnfitError(path, "arrays as inputs", kind or "no type", f"input {value.name!r}")
    if not value.type.tensor_type.HasField("shape"):
        raise UnfitError(path, "a shape", "none", f"input {value.name!r}")
    out: list[int | str] = []
    for axis, dim in enumerate(value.type.tensor_type.shape.dim):
        if dim.HasField("dim_value") and dim.dim_value > 0:
            out.append(int(dim.dim_value))
        elif dim.HasField("dim_value") and dim.dim_value == 0 and not dim.dim_param:
            raise UnfitError(path, "dimensions of at least 1", 0, f"input {value.name!r}")
        else:
            symbol = "" if dim.dim_param in _NAMELESS else dim.dim_param
            out.append(symbol)
            open_dims[symbol or f"{value.name}.{axis}"] = None
            open_dims.setdefault(f"{value.name}.{axis}")
    return out


def _size(place: str, size: int | str, dims: Mapping[str, int]) -> int | str:
    if isinstance(size, int):
        return size
    return dims.get(place, dims.get(size, size))


def _batch_axes(shapes: Sequence[Sequence[int | str]]) -> list[int | None]:
    """Return the open dimension of each input that is the batch.

    That is the first, or another one with the name of the batch, or the only one if it has no name.
    """
    symbols = {shape[0] for shape in shapes if shape and isinstance(shape[0], str) and shape[0]}
    first = any(shape and isinstance(shape[0], str) for shape in shapes)
    out: list[int | None] = []
    for shape in shapes:
        places = [axis for axis, size in enumerate(shape) if isinstance(size, str)]
        named = [axis for axis in places if shape[axis] in symbols]
        if 0 in places:
            out.append(0)
        elif named:
            out.append(named[0])
        elif len(places) == 1 and (shape[places[0]] == "" or not first):
            out.append(places[0])
        else:
            out.append(None)
    return out


def _dtype(path: str, value: Any) -> str:
    import onnx

    number = value.type.tensor_type.elem_type
    try:
        name = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(number)).name
    except (KeyError, TypeError):
        name = f"number {number}"
    name = "strings" if name == "object" else name
    if name not in PORT_DTYPES:
        raise UnfitError(path, f"an input of {', '.join(PORT_DTYPES)}", name, f"input {value.name!r}")
    return name


def fixed_inputs(
    path: str, inputs: Sequence[Any], values: Mapping[str, npt.ArrayLike]
) -> tuple[list[Any], dict[str, Array]]:
    """Return the inputs that are not fixed, and the arrays of those that are."""
    by_name = {value.name: value for value in inputs}
    fixed: dict[str, Array] = {}
    for name, given in values.items():
        if name not in by_name:
            known = ", ".join(map(str, by_name)) or "none"
            raise UnfitError(path, f"an input of the model ({known})", repr(name), "--set")
        kind = by_name[name].type.tensor_type
        array = np.asarray(given).astype(_dtype(path, by_name[name]))
        sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
        if kind.HasField("shape") and array.ndim != len(sizes) and array.size == 1 and None not in sizes:
            array = np.full([int(size) for size in sizes if size is not None], array.reshape(()))
        if kind.HasField("shape") and (
            array.ndim != len(sizes) or any(s not in (None, n) for s, n in zip(sizes, array.shape, strict=True))
        ):
            raise UnfitError(path, f"shape {tuple(sizes)}", array.shape, f"--set {name}")
        fixed[name] = array
    return [value for value in inputs if value.name not in values], fixed
