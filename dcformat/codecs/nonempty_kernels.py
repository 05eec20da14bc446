"""The kernels of coder 3 for the lines and columns that hold entries (spec, "Coder 3")."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from dcformat.codecs.rangecoder import Stream, code_adaptive, keep, opened
from dcformat.jit import device, kernel

Array = npt.NDArray[Any]


@device
def _code_nonempty(stream, state, models, lag, nonempty):  # type: ignore[no-untyped-def]
    """Code which lines (or columns) hold entries, each in the context of the ones before and above it."""
    interval = opened(state)
    for index in range(len(nonempty)):
        context = nonempty[index - 1] if index else 0
        if lag and index >= lag:
            context |= nonempty[index - lag] << 1
        if lag and index >= lag - 1:
            context |= nonempty[index - lag + 1] << 2
        bit, interval = code_adaptive(stream, interval, models, context, 60, nonempty[index])
        nonempty[index] = bit
    keep(state, interval)


_NONEMPTY = "void(int64[::1], uint8[::1], int64, int32[::1], int64, int64[::1])"


def _nonempty_work(nonempty: Array) -> int:
    return 5 * len(nonempty) + 10


@kernel(_NONEMPTY, work=_nonempty_work)
def encode_nonempty(state, buf, end, models, lag, nonempty):  # type: ignore[no-untyped-def]
    """Append which lines (or columns) hold entries."""
    _code_nonempty(Stream(False, buf, end), state, models, lag, nonempty)


@kernel(_NONEMPTY, work=_nonempty_work)
def decode_nonempty(state, buf, end, models, lag, nonempty):  # type: ignore[no-untyped-def]
    """Read which lines (or columns) hold entries."""
    _code_nonempty(Stream(True, buf, end), state, models, lag, nonempty)
