"""The weights of the first layer as pictures: convolution filters, or the inputs that a hidden unit looks at."""

from __future__ import annotations

from math import isqrt, prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat.graph import Conv, Linear
from dcformat_cli.report.numbers import Floats, numbers

if TYPE_CHECKING:
    from dcformat import DcfFile
    from dcformat.contents import TensorInfo

#: Elements of the largest weight that is drawn, and the number of pictures.
_LARGEST, _TILES = 1 << 22, 64
#: The side of the smallest square of inputs that counts as a picture, and of the smallest filter.
_SIDE, _FILTER = 8, 3
#: Maximum number of rows and columns of a matrix that is drawn as a whole.
_MATRIX = 256


class FirstLayer(NamedTuple):
    """Pictures of a weight.

    Attributes
    ----------
    name : str
    tiles : float64 array
        ``(tiles, height, width)``, or ``(tiles, height, width, 3)`` for filters of three channels.
    kind : {'filters', 'colours', 'units', 'matrix'}
        ``colours`` are filters of three channels.
    total : int
        Number of the filters or units that have weights at all.
    of : int
        Number of all of them.
    used : float64 array or None
        ``(height, width)``: how many units have a weight for each input, for units.
    """

    name: str
    tiles: Floats
    kind: str
    total: int
    of: int
    used: Floats | None = None


def first_layer(file: DcfFile) -> FirstLayer | None:
    """Return the pictures of the first layer's weight, or None if it is not a picture, is too large, or is all zeros.

    Raises
    ------
    FormatError
        The tensor is damaged, or takes more memory or work than the file was opened with.
    """
    name, grid = _weight(file)
    if name is None or not 0 < file.info(name).size <= _LARGEST:
        return None
    info = file.info(name)
    dense = np.nan_to_num(numbers(file.dense(name), info.dtype, info.scale), posinf=0.0, neginf=0.0)
    if not dense.any():
        return None
    if len(info.shape) == 4 and min(info.shape[2:]) >= _FILTER:
        return _filters(name, dense)
    rows = dense.reshape(info.shape[0], -1)
    if grid is None:
        if min(rows.shape) < 2 or max(rows.shape) > 16 * _MATRIX:
            return None
        return FirstLayer(name, _shrunk(rows)[None], "matrix", 1, 1)
    tiles = rows.reshape(-1, *grid)
    used = (tiles != 0).sum(0).astype(np.float64)
    return FirstLayer(name, _chosen(tiles), "units", *_counts(tiles), used)


def _chosen(tiles: Floats) -> Floats:
    """Return the pictures with the most weights, in their order."""
    weights = np.count_nonzero(tiles.reshape(len(tiles), -1), axis=1)
    best = np.sort(np.argsort(-weights, kind="stable")[:_TILES])
    chosen: Floats = tiles[best][weights[best] > 0]
    return chosen


def _counts(tiles: Floats) -> tuple[int, int]:
    return int(tiles.reshape(len(tiles), -1).any(1).sum()), len(tiles)


def _filters(name: str, dense: Floats) -> FirstLayer:
    if dense.shape[1] == 3:
        tiles, kind = dense.transpose(0, 2, 3, 1), "colours"
    else:
        tiles, kind = dense.reshape(-1, *dense.shape[2:]), "filters"
    return FirstLayer(name, _chosen(tiles), kind, *_counts(tiles))


def _weight(file: DcfFile) -> tuple[str | None, tuple[int, int] | None]:
    """Return the name of the first weight, and the height and width of the picture that its columns make, if any."""
    if file.graph is not None:
        inputs = [port.shape for port in file.graph.inputs]
        for node in file.graph.nodes:
            if isinstance(node, Linear | Conv):
                info = file.info(node.weight)
                return node.weight, _grid(info, inputs[0]) if isinstance(node, Linear) else None
        return None, None
    for name in file.names:
        info = file.info(name)
        if len(info.shape) == 4 and min(info.shape[2:]) >= _FILTER and info.shape[1] <= 3:
            return name, None
        if len(info.shape) == 2 and info.size and _grid(info, ()) is not None:
            return name, _grid(info, ())
    return None, None


def _grid(info: TensorInfo, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Return the height and width of a picture of an input's elements."""
    columns = info.columns
    if len(shape) >= 2 and prod(shape) == prod(shape[-2:]) == columns and min(shape[-2:]) >= _SIDE:
        return shape[-2], shape[-1]
    side = isqrt(columns)
    return (side, side) if side * side == columns and side >= _SIDE else None


def _shrunk(rows: npt.NDArray[Any]) -> Floats:
    """Return a matrix of at most `_MATRIX` rows and columns: means of the magnitudes of blocks."""
    step = [-(-size // _MATRIX) for size in rows.shape]
    if step == [1, 1]:
        return np.asarray(rows, np.float64)
    padded = np.zeros([-(-size // each) * each for size, each in zip(rows.shape, step, strict=True)])
    padded[: rows.shape[0], : rows.shape[1]] = np.abs(rows)
    return np.asarray(padded.reshape(padded.shape[0] // step[0], step[0], -1, step[1]).mean((1, 3)), np.float64)
