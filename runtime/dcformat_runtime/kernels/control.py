"""The words of `control`, int64, that tell `interpreter.run` what to run and through which threads share a call."""

from __future__ import annotations

#: 0 runs everything. 1 runs one operator alone: then the next words say which plan, first image, stage (0: for each
#: group,
#: 1: after), group and operator, and which of the operator's parts.
SINGLE, PLAN, IMAGE, STAGE, GROUP, OPERATOR, PART = range(7)
#: Pieces of a shared call: parts of the operator, or pieces of the batch of `SIZE` images each.
PIECES, SIZE = 7, 8
#: How often the caller looks whether all pieces are done, and how often helpers look for the next generation.
PATIENCE, LOOKS = 9, 10
#: The generation times `MAX_PIECES` plus the pieces claimed; and the pieces done. Each has a cache line of its own.
CLAIM, DONE = 16, 24
#: Words of `control`.
WIDTH = 32
#: More pieces than any call has.
MAX_PIECES = 1 << 20
