"""Coder 3: logistic mixing of bit models' predictions (spec, "Coder 3"), in the spirit of lpaq (Mahoney 2007).

Several bit models, each in its own context, predict every binary decision. Their log-odds are summed with weights that
learn from every decision, in integers only. Positions take one decision for each element; if whole lines or columns
are empty, the writer may name the nonempty ones first. The coder is made for small networks: it has few contexts, which
suit the layers of networks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs import fits, require_fit
from dcformat.codecs.alphabet import Alphabet
from dcformat.codecs.csr_view import CsrView
from dcformat.codecs.lags import likely
from dcformat.codecs.mixer import INPUTS
from dcformat.codecs.mixing_kernels import decode_cells, encode_cells
from dcformat.codecs.nonempty_kernels import decode_nonempty, encode_nonempty
from dcformat.codecs.rangecoder import Decoder, Encoder, fresh, get, put
from dcformat.errors import StreamError
from dcformat.records import replace
from dcformat.wording import counted

Array = npt.NDArray[Any]

#: For tensors with more elements than this the writer tries only two plans.
LARGE = 1 << 22
#: A decision has five inputs. An element's are the densities of its group and column, then three bit models.
CELL_MODELS = 32 * 32 * 2 + 64 * 32 + 16 * 32
CELL_WEIGHTS = (38, 15, 13, 5, 34)
CELL_SETS = 17
#: A code symbol's are five bit models, with this many contexts for its sign and this many trees for its magnitude.
SIGN_CONTEXTS, TREES, WIDE_TREES = 1 + 81 + 25 + 9 + 9, 2 + 289 + 16 + 257 + 34, 8
SYMBOL_WEIGHTS = (3, 22, 38, 22, 16)
SYMBOL_SETS = 9
#: Magnitudes of more bits than this have one context in each input.
WIDE = 8


def _model_arrays(width: int) -> tuple[Array, ...]:
    """Return the initial arrays of both directions: the mixers of elements and of code symbols, and contexts."""
    trees = WIDE_TREES if width > WIDE else TREES
    cell_weights = np.tile(np.array(CELL_WEIGHTS, np.int64) * 655, CELL_SETS)
    symbol_weights = np.tile(np.array(SYMBOL_WEIGHTS, np.int64) * 655, SYMBOL_SETS)
    contexts = np.array([0, 0, 0, 0, 0, 0, 2, 3, 4, 3, width > WIDE], np.int64)
    return (
        fresh(CELL_MODELS), fresh(SIGN_CONTEXTS + (trees << width)), np.zeros(INPUTS, np.int64),
        np.zeros(INPUTS, np.int64), cell_weights, symbol_weights, np.zeros(CELL_SETS, np.int64),
        np.zeros(SYMBOL_SETS, np.int64), contexts,
    )  # fmt: skip


def _line_arrays(lag: int, length: int) -> tuple[Array, Array, Array]:
    """Return the arrays of the kernels' history: counts by group and by column, and a line."""
    groups = (length - 1) // max(lag, 1) + 1
    return np.zeros((2, groups), np.int64), np.zeros((5, length), np.int64), np.zeros(length, np.int64)


def suits(lines: int, length: int) -> bool:
    """Return whether a matrix is small enough for this coder."""
    return fits(layout.CODER_MIXING, lines, length)


class _Plan(NamedTuple):
    """A way to code a matrix: the lag, and whether nonempty lines and columns are named first."""

    lag: int
    lines_named: int
    columns_named: int


class _Nonempty(NamedTuple):
    """The lines and the columns that hold entries (1), int64."""

    lines: Array
    columns: Array

    @classmethod
    def of(cls, view: CsrView) -> _Nonempty:
        columns = np.zeros(view.length, np.int64)
        columns[view.indices] = 1
        return cls((np.diff(view.indptr) > 0).astype(np.int64), columns)


def encode(encoder: Encoder, view: CsrView, alphabet: Alphabet) -> None:
    """Append the positions and code symbols of a sparse matrix.

    Parameters
    ----------
    encoder : Encoder
    view : CsrView
        The matrix. The reader knows its number of lines, their length, and the number of entries.
    alphabet : Alphabet
        The code symbols of the matrix.

    Raises
    ------
    LimitError
        The matrix does not suit this coder (`suits`).
    """
    if not view.nnz:
        return
    require_fit(layout.CODER_MIXING, view.lines, view.length)
    view = replace(view, codes=np.ascontiguousarray(view.codes, np.uint16))
    nonempty = _Nonempty.of(view)
    flags = [(0, 0)]
    some = (int(not nonempty.lines.all()), int(not nonempty.columns.all()))
    flags += [some] if any(some) else []
    flags += [(0, 1)] if all(some) else []
    lags = [0, *likely(view, alphabet.negatives)]
    if view.lines * view.length > LARGE:
        flags, lags = flags[:1], lags[:2]
    plans = [_Plan(lag, *flag) for flag in flags for lag in dict.fromkeys(lags)]
    best = min(plans, key=lambda plan: (_cost(plan, view, alphabet, nonempty), plan))
    _write(encoder, best, view, alphabet, nonempty)


def _cost(plan: _Plan, view: CsrView, alphabet: Alphabet, nonempty: _Nonempty) -> int:
    encoder = Encoder(0)
    _write(encoder, plan, view, alphabet, nonempty)
    return int(encoder.state[2])


def _write(encoder: Encoder, plan: _Plan, view: CsrView, alphabet: Alphabet, nonempty: _Nonempty) -> None:
    lines, length, width = view.lines, view.length, alphabet.magnitude_bits
    put(encoder, 8, plan.lag)
    put(encoder, 2, plan.lines_named << 1 | plan.columns_named)
    encoder.reserve(2 * (lines * length + lines + length + view.nnz * (width + 1)) + 64)
    named_lines, named_columns = np.ones(lines, np.int64), np.ones(length, np.int64)
    if plan.lines_named:
        named_lines = nonempty.lines
        encode_nonempty(encoder.state, encoder.buf, 0, fresh(8), 0, named_lines)
    if plan.columns_named:
        named_columns = nonempty.columns
        encode_nonempty(encoder.state, encoder.buf, 0, fresh(8), plan.lag, named_columns)
    encode_cells(
        encoder.state, encoder.buf, 0, *_model_arrays(width), plan.lag, lines, length, width, alphabet.negatives,
        alphabet.positives, named_lines, named_columns, *_line_arrays(plan.lag, length), view.indptr, view.indices,
        view.codes,
    )  # fmt: skip


def decode(decoder: Decoder, lines: int, length: int, nnz: int, alphabet: Alphabet) -> CsrView:
    """Read what `encode` wrote: exactly `nnz` entries, with int32 indices and uint16 codes.

    Raises
    ------
    LimitError
        The matrix does not suit this coder.
    StreamError
        The stream ends early, or names too few lines and columns for the entries.
    """
    view = CsrView(np.zeros(lines + 1, np.int64), np.zeros(nnz, np.int32), np.zeros(nnz, np.uint16), lines, length)
    if not nnz:
        return view
    require_fit(layout.CODER_MIXING, lines, length)
    lag, named = get(decoder, 8), get(decoder, 2)
    if lag == 1:
        raise StreamError("coder 3's lag", got=lag, expected="0, or 2 and more")
    width = alphabet.magnitude_bits
    named_lines, named_columns = np.ones(lines, np.int64), np.ones(length, np.int64)
    end = len(decoder.buf)
    if named & 2:
        decode_nonempty(decoder.state, decoder.buf, end, fresh(8), 0, named_lines)
    if named & 1:
        decode_nonempty(decoder.state, decoder.buf, end, fresh(8), lag, named_columns)
    failed = decode_cells(
        decoder.state, decoder.buf, end, *_model_arrays(width), lag, lines, length, width, alphabet.negatives,
        alphabet.positives, named_lines, named_columns, *_line_arrays(lag, length), view.indptr, view.indices,
        view.codes,
    )  # fmt: skip
    if failed:
        raise StreamError(
            "coder 3's positions", got="the stream's end or too few elements", expected=counted(nnz, "entry", "entries")
        )
    return view
