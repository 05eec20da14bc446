"""What can be wrong with somebody else's file: one line that says which file, what was expected and what was found."""

from __future__ import annotations

#: A part of a message is cut at this many characters: names come from files and may be very long.
_LONGEST = 300


class InputError(ValueError):
    """A file that cannot be used. The message is ``PATH: WHAT: expected EXPECTED, found FOUND``.

    Attributes
    ----------
    path : str
        The file, as the caller named it.
    expected, found : str
        What would have been valid, and what is there.
    what : str
        The tensor or part of the file; may be empty.
    """

    def __init__(self, path: object, expected: object, found: object, what: str = "") -> None:
        self.path = str(path)
        self.expected, self.found, self.what = (_short(str(part)) for part in (expected, found, what))
        where = f"{self.what}: " if what else ""
        super().__init__(f"{self.path}: {where}expected {self.expected}, found {self.found}")


class MissingTorchError(ImportError):
    """Reading a PyTorch file needs PyTorch in a version whose ``weights_only`` loading is safe."""


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
