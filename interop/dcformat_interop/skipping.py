"""Patterns of names to leave out."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase


class SkippedNames:
    """Decides whether a name matches one of the patterns, and remembers the patterns that matched."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._used = dict.fromkeys(patterns, False)

    def __call__(self, name: str) -> bool:
        """Return whether the name is to be left out."""
        matches = [pattern for pattern in self._used if name == pattern or fnmatchcase(name, pattern)]
        self._used.update(dict.fromkeys(matches, True))
        return bool(matches)

    def unused(self) -> list[str]:
        """Return the patterns that no name has matched."""
        return [pattern for pattern, used in self._used.items() if not used]
