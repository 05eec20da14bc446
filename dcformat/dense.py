"""Tensors from arrays: exact conversion or an error, zeros left out, repeated values in a codebook."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.errors import EncodingError
from dcformat.floats import bit_patterns
from dcformat.forms import as_shared, as_sparse
from dcformat.model import STORAGE, Tensor, uniform_bits

Array = npt.NDArray[Any]

#: A codebook pays only if its values are used this often on average.
_LEAST_USES = 2
#: The dtypes whose negative zeros may become positive, and those that NumPy holds only as bit patterns.
SIGNED_ZEROS = ("float32", "float16", "bfloat16", "float64")
_BIT_PATTERNS = ("bfloat16", *(name for name in layout.DTYPES if name.startswith("float8")))


def from_dense(
    name: str, values: npt.ArrayLike, dtype: str | None = None, scale: float = 1.0, *, exact: bool = False
) -> Tensor:
    """Return an array as a `Tensor` with the same numbers; the sign of zeros is kept only if `exact`.

    Parameters
    ----------
    name : str
    values : array_like
        Numbers of any shape. For int8 these are the integers, not their products with `scale`. If `dtype` is bfloat16
        or a float of eight bits, an array of uint16 or uint8 is taken as bit patterns, as in ``STORAGE[dtype]``.
    dtype : str, optional
        One of `layout.DTYPES`. By default the array's own dtype if it is float32, float16, bfloat16 or int8, else
        float32.
    scale : float
        For int8 only: an element's value is ``scale * integer``.
    exact : bool
        Keep negative zeros. By default they become positive, so that a sparse tensor leaves them out.

    Returns
    -------
    Tensor
        A constant if all elements are equal, otherwise sparse if some are zero. It has a codebook if each stored value
        occurs at least twice on average. The writer may store another form of the tensor.

    Raises
    ------
    EncodingError
        `values` is not an array of numbers, or `dtype` cannot hold one of them exactly.
    """
    array, dtype = as_stored(name, values, dtype, exact)
    flat = np.ascontiguousarray(array).reshape(-1)
    if not exact and dtype in SIGNED_ZEROS:
        flat = positive_zeros(flat, dtype)
    tensor = Tensor(name, array.shape, dtype, flat, scale=scale)
    if flat.size > 1 and uniform_bits(tensor) is not None:
        return Tensor(name, array.shape, dtype, flat[:1].copy(), scale=scale)
    if array.ndim and not bit_patterns(flat).all():
        tensor = as_sparse(tensor)
    return with_codebook(tensor)


def with_codebook(tensor: Tensor) -> Tensor:
    """Return the tensor with a codebook if each stored value occurs at least twice on average."""
    shared = as_shared(tensor)
    if shared is None or shared.codebook is None or len(shared.codebook) > len(shared.data) // _LEAST_USES:
        return tensor
    return shared


def positive_zeros(values: Array, dtype: str) -> Array:
    """Return contiguous values of a dtype in `SIGNED_ZEROS` with positive zeros; the same array if none is negative."""
    negative = bit_patterns(values) == _sign(dtype)
    return np.where(negative, values.dtype.type(0), values) if negative.any() else values


def negative_zeros(values: npt.ArrayLike, dtype: str | None = None) -> int:
    """Return how many negative zeros `from_dense` would make positive; it has the same parameters and errors."""
    array, dtype = as_stored("values", values, dtype, exact=False)
    return (
        0
        if dtype not in SIGNED_ZEROS
        else int(np.count_nonzero(bit_patterns(np.ascontiguousarray(array)) == _sign(dtype)))
    )


def _sign(dtype: str) -> int:
    """Return the bit pattern of a negative zero."""
    return 1 << (8 * STORAGE[dtype].itemsize - 1)


def as_stored(name: str, values: npt.ArrayLike, dtype: str | None, exact: bool) -> tuple[Array, str]:
    """Return an array in ``STORAGE[dtype]`` and the dtype's name; raise if the conversion would lose anything."""
    field = f"tensor {name!r}"
    array = _array(field, values)
    if dtype is None:
        if array.dtype.name == "uint16":
            expected = "dtype='bfloat16' if these are bit patterns, or another array if they are numbers"
            raise EncodingError(field, got="uint16 without a dtype", expected=expected)
        dtype = array.dtype.name if array.dtype.name in layout.DTYPES[: layout.KERNEL_DTYPES] else "float32"
    if dtype not in STORAGE:
        raise EncodingError(f"dtype of {field}", got=repr(dtype), expected=", ".join(layout.DTYPES))
    as_bits = dtype in _BIT_PATTERNS
    if array.dtype.name == dtype:
        return (array.view(STORAGE[dtype]) if as_bits else array.astype(STORAGE[dtype], copy=False)), dtype
    if as_bits and array.dtype.name == STORAGE[dtype].name:
        return array.astype(STORAGE[dtype], copy=False), dtype
    if array.dtype.kind == "c" or (array.dtype.name in _BIT_PATTERNS and array.dtype.name != "bfloat16"):
        raise EncodingError(field, got=f"dtype {array.dtype}", expected=f"numbers of {dtype}, or this dtype by name")
    if as_bits and dtype != "bfloat16":
        raise EncodingError(field, got=f"dtype {array.dtype}", expected=f"bit patterns of {dtype} as uint8")
    if array.dtype.name == "bfloat16":
        array = (array.view("<u2").astype("<u4") << 16).view("<f4")
    between = STORAGE["float32" if dtype == "bfloat16" else dtype]
    with np.errstate(over="ignore", invalid="ignore"):
        made = array.astype(between)
        kept = _equal(array, made)
        if dtype == "bfloat16":
            kept &= made.view("<u4") & 0xFFFF == 0
        if exact and dtype == "int8" and array.dtype.kind == "f":
            kept &= ~((array == 0) & np.signbit(array))
    if not kept.all():
        place = tuple(int(i) for i in np.argwhere(~kept)[0])
        way = "round it first" if array.dtype.kind == "f" else "scale it first"
        expected = f"numbers that {dtype} holds exactly (choose another dtype, or {way})"
        raise EncodingError(field, got=f"{array[place]} at {place}", expected=expected)
    return ((made.view("<u4") >> 16).astype("<u2") if dtype == "bfloat16" else made), dtype


def _array(field: str, values: npt.ArrayLike) -> Array:
    """Return an array of real numbers."""
    if np.ma.isMaskedArray(values) and np.ma.is_masked(values):
        raise EncodingError(field, got="masked elements", expected="every element: fill them first (`filled`)")
    if type(values).__module__.startswith("scipy.sparse"):
        raise EncodingError(field, got="a SciPy sparse matrix", expected="an array (`toarray`), or from_scipy")
    try:
        array: Array = np.asarray(values)
    except ValueError as error:
        raise EncodingError(field, got=str(error), expected="an array of real numbers") from None
    if array.dtype.kind not in "fiub" and array.dtype.name not in ("complex64", *_BIT_PATTERNS):
        raise EncodingError(
            field, got=f"dtype {array.dtype}", expected="numbers that a file holds (convert them first)"
        )
    return array


def _equal(array: Array, made: Array) -> npt.NDArray[np.bool_]:
    """Return where a conversion has kept the number (or NaN)."""
    if array.dtype.kind in "iub" and made.dtype.kind == "f":
        limits = np.iinfo(np.uint8 if array.dtype.kind == "b" else array.dtype)
        wide = made.astype(np.float64)
        # As a float, the greatest integer is rounded up, and numbers beyond it cannot be converted back.
        inside = (wide >= float(limits.min)) & (wide < float(limits.max + 1))
        return np.asarray(inside & (np.where(inside, wide, 0).astype(array.dtype) == array))
    if made.dtype.kind != "f":
        return np.asarray(made == array)
    return np.asarray((made.astype(array.dtype) == array) | (array != array))
