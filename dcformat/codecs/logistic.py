"""Integer logistic arithmetic for the adaptive coders (spec, "Tables and mixing"): the same on every machine.

Log-odds are in units of 1/256 of a doubling: ``256 * log2(p / (1 - p))``, between -`MAX_ODDS` and `MAX_ODDS`.
"""

from __future__ import annotations

from math import floor, log2

import numpy as np

MAX_ODDS = 3071
#: STRETCH[p] = the log-odds of the probability (p + 1/2) / 4096.
STRETCH = np.array([floor(256 * log2((p + 0.5) / (4095.5 - p)) + 0.5) for p in range(4096)], np.int64)
#: SQUASH[x + MAX_ODDS] = the probability, in 1/65536, whose log-odds are x.
SQUASH = np.array([floor(65536 / (1 + 2 ** (-x / 256)) + 0.5) for x in range(-MAX_ODDS, MAX_ODDS + 1)], np.int64)
#: LOG[n] = 256 * log2(n), 0 for 0.
LOG = np.array([0] + [floor(256 * log2(n) + 0.5) for n in range(1, 8192)], np.int64)
