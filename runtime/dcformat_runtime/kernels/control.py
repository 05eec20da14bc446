"""The int64 words of `control`, which tell `interpreter.run` what to run and let threads share a call."""

from __future__ import annotations

#: 0 runs everything; 1 runs one operator alone. The next words then give its plan, first image, stage (0: for each
#: group; 1: after them), group and number, and which of its parts to run.
SINGLE, PLAN, IMAGE, STAGE, GROUP, OPERATOR, PART = range(7)
#: The number of pieces of a shared call: parts of the operator, or pieces of the batch with `SIZE` images each.
PIECES, SIZE = 7, 8
#: How often the caller checks whether all pieces are done, and how often workers look for the next generation.
PATIENCE, LOOKS = 9, 10
#: The generation times `MAX_PIECES` plus the number of claimed pieces; and the number of finished pieces. Each word has
#: a cache line of its own.
CLAIM, DONE = 16, 24
#: The number of words in `control`.
WIDTH = 32
#: A number greater than that of the pieces of any call.
MAX_PIECES = 1 << 20
