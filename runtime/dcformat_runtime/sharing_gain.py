"""Decides call by call whether threads should share the operators of one image."""

from __future__ import annotations

from math import inf

#: The number of calls in a row that gain nothing until some run alone, the most that then do, and how often one runs
#: alone to be timed again.
LOSSES, MAX_ALONE, EVERY = 3, 64, 64


class SharingGain:
    """Compares the seconds of calls that threads shared with those of calls that one ran alone.

    An estimate cannot know this: threads that wait for one another at each operator lose time if another process
    occupies a processor, or if waking a thread takes as long as the operators. The first call, which fills the caches,
    is shared, and the second runs alone.
    """

    def __init__(self) -> None:
        self._alone, self._left = inf, 0
        self._losses = self._shared = 0

    def is_next_shared(self) -> bool:
        """Return whether to share the next call, whose seconds go to `add_shared` or to `add_alone`."""
        return self._left <= 0

    def add_alone(self, seconds: float) -> None:
        """Take note of a call that ran alone."""
        self._alone = seconds
        self._left -= 1

    def add_shared(self, seconds: float) -> None:
        """Take note of a call that was shared."""
        self._shared += 1
        self._losses = self._losses + 1 if seconds > 0.95 * self._alone else 0
        if self._losses and self._losses % LOSSES == 0:
            self._left = min(4 ** (self._losses // LOSSES), MAX_ALONE)
        elif self._shared % EVERY == 1:
            self._left = 1
