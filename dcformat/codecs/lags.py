"""The lags at which entries correlate, as the writer guesses them; no file depends on the guess.

A line of a layer is often a flattened image or stack of kernels, so the element above lies one image's width back.
"""

from __future__ import annotations

import numpy as np

from dcformat.codecs.csr_view import CsrView

#: The largest lag that the writer considers, and the number of first elements that it looks at.
MAX_LAG, SAMPLE = 64, 1 << 20


def likely(view: CsrView, negatives: int) -> list[int]:
    """Return up to three lags above 1, most promising first: by pairs of entries, then by pairs of equal sign."""
    length, rows = view.length, min(view.lines, max(SAMPLE // max(view.length, 1), 1))
    count = int(view.indptr[rows])
    if length < 3 or length > SAMPLE or not count:
        return []
    signs = np.zeros((rows, length), np.int32)
    row = np.repeat(np.arange(rows), np.diff(view.indptr[: rows + 1]))
    signs[row, view.indices[:count]] = np.where(view.codes[:count] < negatives, -1, 1)
    there = np.abs(signs)
    lags = range(2, min(MAX_LAG, length - 1) + 1)
    pairs = {lag: int((there[:, lag:] * there[:, :-lag]).sum()) * length // (length - lag) for lag in lags}
    alike = {lag: int((signs[:, lag:] * signs[:, :-lag]).sum()) * length // (length - lag) for lag in lags}
    by_pairs = sorted(lags, key=lambda lag: (-pairs[lag], lag))
    by_sign = sorted(lags, key=lambda lag: (-alike[lag], lag))
    return list(dict.fromkeys([by_pairs[0], by_sign[0], *by_pairs[1:2]]))
