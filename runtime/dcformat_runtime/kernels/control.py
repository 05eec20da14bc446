"""The int64 words of `control`, which tell `interpreter.run` what to run and let threads share a call."""

from __future__ import annotations

#: What to run: `EVERYTHING`; `ONE`, one operator alone, of which the next words give the plan, first image, stage (0:
#: for each group; 1: after them), group and number; or `TOGETHER`, all operators of the plan's first stage for one
#: image, each of them in `PARTS` parts.
MODE, PLAN, IMAGE, STAGE, GROUP, OPERATOR, PARTS = range(7)
EVERYTHING, ONE, TOGETHER = range(3)
#: The number of pieces of a shared call: parts of all operators, or pieces of the batch with `SIZE` images each.
PIECES, SIZE = 7, 8
#: How often a thread checks whether the pieces that it waits for are done, and how often workers look for the next
#: generation.
PATIENCE, LOOKS = 9, 10
#: The generation times `MAX_PIECES` plus the number of claimed pieces; and the number of finished pieces. Each word has
#: a cache line of its own.
CLAIM, DONE = 16, 24
#: The number of words in `control`.
WIDTH = 32
#: A number greater than that of the pieces of any call.
MAX_PIECES = 1 << 20
