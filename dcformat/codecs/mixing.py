"""Coder 3: logistic mixing of several models' predictions (spec, "Coder 3"), in the spirit of lpaq (Mahoney 2007).

Every binary decision is predicted by models that see it in different contexts. Their log-odds are summed with weights
that learn from every decision, in integers only. Positions are one decision for each cell; where whole lines or columns
are empty, the writer may name those first. Made for small networks: few contexts, and those of kinds that a layer has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcformat.codecs.lags import likely
from dcformat.codecs.mixing_kernels import INPUTS, decode_cells, decode_lives, encode_cells, encode_lives
from dcformat.codecs.rangecoder import Decoder, Encoder, fresh
from dcformat.codecs.values import get, put
from dcformat.errors import LimitError, StreamError

Array = npt.NDArray[Any]

#: Beyond these the coder would take too long, or too much memory for its columns.
MOST_CELLS, MOST_LENGTH = 1 << 26, 1 << 20
#: Of tensors with more cells than this the writer tries two ways only.
LARGE = 1 << 22
#: A decision has five inputs. A cell's: counts of its group's and its column's entries, then three models.
CELL_MODELS = 32 * 32 * 2 + 64 * 32 + 16 * 32
CELL_WEIGHTS = (38, 15, 13, 5, 34)
CELL_SETS = 17
#: A label's inputs too are five: models of these many contexts for its sign, and these many trees for its magnitude.
SIGN_CONTEXTS, TREES, WIDE_TREES = 1 + 81 + 25 + 9 + 9, 2 + 289 + 16 + 257 + 34, 8
LABEL_WEIGHTS = (3, 22, 38, 22, 16)
LABEL_SETS = 9
#: Magnitudes of more bits than this have one context in each input.
WIDE = 8


def _model_arrays(width: int) -> tuple[Array, ...]:
    """Return what the two directions start from: models, room for a decision, weights and how often they were used."""
    trees = WIDE_TREES if width > WIDE else TREES
    cell_weights = np.tile(np.array(CELL_WEIGHTS, np.int64) * 655, CELL_SETS)
    label_weights = np.tile(np.array(LABEL_WEIGHTS, np.int64) * 655, LABEL_SETS)
    contexts = np.array([0, 0, 0, 0, 0, 0, 2, 3, 4, 3, width > WIDE], np.int64)
    return (
        fresh(CELL_MODELS), fresh(SIGN_CONTEXTS + (trees << width)), np.zeros(INPUTS, np.int64),
        np.zeros(INPUTS, np.int64), cell_weights, label_weights, np.zeros(CELL_SETS, np.int64),
        np.zeros(LABEL_SETS, np.int64), contexts,
    )  # fmt: skip


def _line_arrays(near: int, length: int) -> tuple[Array, Array, Array]:
    """Return counts by group and by column, and room for a line."""
    groups = (length - 1) // max(near, 1) + 1
    return np.zeros((2, groups), np.int64), np.zeros((5, length), np.int64), np.zeros(length, np.int64)


def suits(lines: int, length: int) -> bool:
    """Whether a tensor is small enough for this coder."""
    return lines * length <= MOST_CELLS and length <= MOST_LENGTH


def _require_fit(lines: int, length: int) -> None:
    if not suits(lines, length):
        raise LimitError(
            "coder 3's cells",
            got=f"{lines} x {length}",
            expected=f"at most {MOST_CELLS}, lines of at most {MOST_LENGTH}",
        )


def encode(
    encoder: Encoder, pointers: Array, indices: Array, labels: Array, lines: int, length: int, symbols: int,
    negatives: int,
) -> None:  # fmt: skip
    """Append the positions and labels of a sparse matrix.

    Parameters
    ----------
    encoder : Encoder
    pointers : int64[lines + 1]
    indices : int32[stored]
        Ascending within a line.
    labels : uint8 or uint16[stored]
        Below `symbols`.
    lines, length, symbols, negatives : int
        The reader knows these, and how many entries are stored. Labels below `negatives` stand for negative values.

    Raises
    ------
    LimitError
        The matrix does not suit this coder (`suits`).
    """
    _require_fit(lines, length)
    if not len(indices):
        return
    labels = np.ascontiguousarray(labels, np.uint16)
    live_lines = (np.diff(pointers) > 0).astype(np.int64)
    live_columns = np.zeros(length, np.int64)
    live_columns[indices] = 1
    flags = [(0, 0)]
    some = (int(not live_lines.all()), int(not live_columns.all()))
    flags += [some] if any(some) else []
    flags += [(0, 1)] if all(some) else []
    nears = [0, *likely(pointers, indices, labels, lines, length, negatives)]
    if lines * length > LARGE:
        flags, nears = flags[:1], nears[:2]
    plans = [(near, *flag) for flag in flags for near in dict.fromkeys(nears)]
    matrix = (pointers, indices, labels, lines, length, symbols, negatives, live_lines, live_columns)
    _write(encoder, min(plans, key=lambda plan: (_cost(plan, *matrix), plan)), *matrix)


def _cost(plan: tuple[int, int, int], *matrix: Any) -> int:
    encoder = Encoder(0)
    _write(encoder, plan, *matrix)
    return int(encoder.state[2])


def _write(
    encoder: Encoder, plan: tuple[int, int, int], pointers: Array, indices: Array, labels: Array, lines: int,
    length: int, symbols: int, negatives: int, live_lines: Array, live_columns: Array,
) -> None:  # fmt: skip
    near, some_lines, some_columns = plan
    width = _magnitude_bits(symbols, negatives)
    put(encoder, 8, near)
    put(encoder, 2, some_lines << 1 | some_columns)
    encoder.reserve(2 * (lines * length + lines + length + len(indices) * (width + 1)) + 64)
    live_lines = live_lines if some_lines else np.ones(lines, np.int64)
    live_columns = live_columns if some_columns else np.ones(length, np.int64)
    if some_lines:
        encode_lives(encoder.state, encoder.buf, 0, fresh(8), 0, live_lines)
    if some_columns:
        encode_lives(encoder.state, encoder.buf, 0, fresh(8), near, live_columns)
    encode_cells(
        encoder.state, encoder.buf, 0, *_model_arrays(width), near, lines, length, width, negatives,
        symbols - negatives, live_lines, live_columns, *_line_arrays(near, length), pointers, indices, labels,
    )  # fmt: skip


def _magnitude_bits(symbols: int, negatives: int) -> int:
    return (max(negatives, symbols - negatives) - 1).bit_length()


def decode(
    decoder: Decoder, lines: int, length: int, stored: int, symbols: int, negatives: int
) -> tuple[Array, Array, Array]:
    """Read what `encode` wrote: pointers (int64), indices (int32) and labels (uint16), `stored` entries exactly.

    Raises
    ------
    LimitError
        The matrix does not suit this coder.
    StreamError
        The stream ends early, or names too few lines and columns for the entries.
    """
    _require_fit(lines, length)
    pointers, indices = np.zeros(lines + 1, np.int64), np.zeros(stored, np.int32)
    labels = np.zeros(stored, np.uint16)
    if not stored:
        return pointers, indices, labels
    near, some = get(decoder, 8), get(decoder, 2)
    if near == 1:
        raise StreamError("coder 3's distance", got=near, expected="0, or 2 and more")
    width = _magnitude_bits(symbols, negatives)
    live_lines, live_columns = np.ones(lines, np.int64), np.ones(length, np.int64)
    end = len(decoder.buf)
    if some & 2:
        decode_lives(decoder.state, decoder.buf, end, fresh(8), 0, live_lines)
    if some & 1:
        decode_lives(decoder.state, decoder.buf, end, fresh(8), near, live_columns)
    failed = decode_cells(
        decoder.state, decoder.buf, end, *_model_arrays(width), near, lines, length, width, negatives,
        symbols - negatives, live_lines, live_columns, *_line_arrays(near, length), pointers, indices, labels,
    )  # fmt: skip
    if failed:
        raise StreamError("coder 3's positions", got="the stream's end or too few cells", expected=f"{stored} entries")
    return pointers, indices, labels


def encode_dense(encoder: Encoder, labels: Array, lines: int, length: int, symbols: int, negatives: int) -> None:
    """Append a dense matrix's labels, row by row: a sparse one's of which every cell is stored."""
    pointers = np.arange(lines + 1, dtype=np.int64) * length
    indices = np.tile(np.arange(length, dtype=np.int32), lines)
    encode(encoder, pointers, indices, labels, lines, length, symbols, negatives)


def decode_dense(decoder: Decoder, lines: int, length: int, symbols: int, negatives: int) -> Array:
    """Read what `encode_dense` wrote: labels (uint16)."""
    return decode(decoder, lines, length, lines * length, symbols, negatives)[2]
