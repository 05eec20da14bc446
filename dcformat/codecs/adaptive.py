"""Coder 2: adaptive binary arithmetic coding of positions and code symbols (spec, "Coder 2").

It has two variants; the writer takes the shorter result. One codes the run of zeros before each entry as symbols of a
tree, for positions that follow no pattern. The other codes one bit for each element, in contexts of its row, its column
and two neighbours. A code symbol is a sign and a magnitude, which counts codebook values from zero outwards.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.codecs import fits, require_fit
from dcformat.codecs.adaptive_kernels import decode_cells, decode_runs, encode_cells, encode_runs
from dcformat.codecs.alphabet import Alphabet
from dcformat.codecs.csr_view import CsrView
from dcformat.codecs.lags import likely
from dcformat.codecs.logistic import STRETCH
from dcformat.codecs.rangecoder import Decoder, Encoder, fresh, get, put
from dcformat.errors import StreamError
from dcformat.records import replace
from dcformat.wording import counted

Array = npt.NDArray[Any]

#: The limits that the writer tries for the number of bits that a bit model averages over.
LIMITS = (30, 127, 255, 510)
#: Number of contexts of an element, of a sign and of a magnitude.
CELL_CONTEXTS, SIGN_CONTEXTS, SIZE_CONTEXTS = 16 * 16 * 4, 9, 16
#: Magnitudes of more bits than this have only one context.
WIDE = 8
#: For tensors this large the writer prefers runs, which are faster, unless contexts save 1/128.
LARGE = 1 << 20
#: With this many entries, the models adapt quickly under any limit, so the writer tries fewer plans.
MANY = 1 << 16


def _run_models(bits: int, width: int) -> Array:
    return fresh((1 << bits) + (1 << width) + 1)


def _cell_models(width: int) -> Array:
    sizes = 1 if width > WIDE else SIZE_CONTEXTS
    return fresh(CELL_CONTEXTS + SIGN_CONTEXTS + (sizes << width))


def _cell_state(lines: int, length: int, stored: int) -> tuple[int, Array, Array, Array]:
    """Return the first estimate of the density, and the arrays of `_Columns`."""
    density = min(max((stored << 16) // (lines * length), 64), 65472)
    return density, np.full(length, density, np.int32), np.full(length, -1, np.int32), np.zeros(length, np.int32)


class _Plan(NamedTuple):
    """A way to code a matrix: the variant, the index of a limit, and the width of a run's symbol or the lag."""

    by_cells: bool
    limit: int
    choice: int


def suits(lines: int, length: int) -> bool:
    """Return whether a matrix is small enough for this coder."""
    return length <= layout.MAX_CONTEXT_LENGTH


def encode(encoder: Encoder, view: CsrView, alphabet: Alphabet) -> None:
    """Append the positions and code symbols of a sparse matrix.

    Parameters
    ----------
    encoder : Encoder
    view : CsrView
        The matrix. The reader knows its number of lines, their length, and the number of entries.
    alphabet : Alphabet
        The code symbols of the matrix.
    """
    if not view.nnz:
        return
    view = replace(view, codes=np.ascontiguousarray(view.codes, np.uint16))
    cells = view.lines * view.length
    thorough = cells < LARGE and view.nnz < MANY
    limits = range(len(LIMITS)) if thorough else (3,)
    width = min(max((cells // view.nnz).bit_length(), 1), 6)
    widths = range(width, min(width + 2, 8) + 1) if thorough else (width,)
    plans = [_Plan(False, limit, bits) for limit in limits for bits in widths]
    if fits(layout.CODER_ADAPTIVE, view.lines, view.length):
        lags = list(dict.fromkeys([2, *likely(view, alphabet.negatives)]))[: 4 if thorough else 2]
        plans += [_Plan(True, limit, lag) for limit in limits for lag in lags]
    costs = [_cost(plan, view, alphabet) for plan in plans]
    best = min(range(len(plans)), key=lambda k: (costs[k], k))
    runs = min((cost, k) for k, cost in enumerate(costs) if not plans[k].by_cells)
    if cells >= LARGE and runs[0] - costs[best] < runs[0] >> 7:
        best = runs[1]
    _write(encoder, plans[best], view, alphabet)


def _cost(plan: _Plan, view: CsrView, alphabet: Alphabet) -> int:
    encoder = Encoder(0)
    _write(encoder, plan, view, alphabet)
    return int(encoder.state[2])


def _write(encoder: Encoder, plan: _Plan, view: CsrView, alphabet: Alphabet) -> None:
    lines, length, stored = view.lines, view.length, view.nnz
    width, limit = alphabet.magnitude_bits, LIMITS[plan.limit]
    matrix = (view.indptr, view.indices, view.codes)
    put(encoder, 1, int(plan.by_cells))
    put(encoder, 2, plan.limit)
    if plan.by_cells:
        put(encoder, 8, plan.choice)
        encoder.reserve(2 * (lines * length + stored * (width + 1)) + 64)
        density, *state = _cell_state(lines, length, stored)
        encode_cells(
            encoder.state, encoder.buf, 0, _cell_models(width), STRETCH, limit, plan.choice, lines, length,
            density, width, alphabet.negatives, alphabet.positives, *state, *matrix,
        )  # fmt: skip
    else:
        put(encoder, 3, plan.choice - 1)
        escapes = lines * length // ((1 << plan.choice) - 1)
        encoder.reserve(2 * (plan.choice * (stored + escapes) + stored * (width + 1)) + 64)
        encode_runs(
            encoder.state, encoder.buf, 0, _run_models(plan.choice, width), limit, plan.choice, lines, length,
            width, alphabet.negatives, alphabet.positives, *matrix,
        )  # fmt: skip


def decode(decoder: Decoder, lines: int, length: int, nnz: int, alphabet: Alphabet) -> CsrView:
    """Read what `encode` wrote: exactly `nnz` entries, with int32 indices and uint16 codes.

    Raises
    ------
    StreamError
        The stream ends early, or its positions lie past the last line.
    LimitError
        The stream uses contexts for a matrix that is too large for them.
    """
    view = CsrView(np.zeros(lines + 1, np.int64), np.zeros(nnz, np.int32), np.zeros(nnz, np.uint16), lines, length)
    if not nnz:
        return view
    matrix = (view.indptr, view.indices, view.codes)
    width = alphabet.magnitude_bits
    by_cells, limit = get(decoder, 1), LIMITS[get(decoder, 2)]
    if by_cells:
        require_fit(layout.CODER_ADAPTIVE, lines, length)
        lag = get(decoder, 8)
        density, *state = _cell_state(lines, length, nnz)
        failed = decode_cells(
            decoder.state, decoder.buf, len(decoder.buf), _cell_models(width), STRETCH, limit, lag, lines,
            length, density, width, alphabet.negatives, alphabet.positives, *state, *matrix,
        )  # fmt: skip
    else:
        bits = get(decoder, 3) + 1
        failed = decode_runs(
            decoder.state, decoder.buf, len(decoder.buf), _run_models(bits, width), limit, bits, lines, length,
            width, alphabet.negatives, alphabet.positives, *matrix,
        )  # fmt: skip
    if failed:
        raise StreamError(
            "coder 2's positions", got="the stream's or the tensor's end", expected=counted(nnz, "entry", "entries")
        )
    return view
