"""Errors in foreign files: one line that names the file and says what was expected and what was found."""

from __future__ import annotations

from typing import Any

#: Maximum number of characters of each part of a message: names come from files and may be very long.
_LONGEST = 300


class UnfitError(ValueError):
    """A file or another thing that the user named cannot be used.

    The message is ``PATH: WHAT: expected EXPECTED, found FOUND``.

    Attributes
    ----------
    path : str
        The file, as the caller named it.
    expected, found : str
        What would have been valid, and what was found.
    what : str
        The tensor or part of the file; may be empty.
    """

    def __init__(self, path: object, expected: object, found: object, what: str = "") -> None:
        self.path = str(path)
        self.expected, self.found, self.what = (_short(str(part)) for part in (expected, found, what))
        where = f"{self.what}: " if what else ""
        super().__init__(f"{self.path}: {where}expected {self.expected}, found {self.found}")

    def __reduce__(self) -> tuple[Any, ...]:
        # An error in another process travels as a pickle.
        return _again, (type(self), self.args, self.__dict__)


class WrongKindError(UnfitError):
    """The file is of another kind. The message is ``PATH: not EXPECTED (FOUND)``, and says what to give instead."""

    def __init__(self, path: object, expected: object, found: object, instead: str = "") -> None:
        super().__init__(path, expected, found)
        hint = f": give {instead}" if instead else ""
        self.args = (f"{self.path}: not {self.expected} ({self.found}){hint}",)


class MissingTorchError(ImportError):
    """PyTorch is missing, or too old to load a file's tensors without running code from it."""


def _again(kind: type[UnfitError], args: tuple[Any, ...], attributes: dict[str, Any]) -> UnfitError:
    """Return an error that was pickled."""
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error


def _short(text: str) -> str:
    return printable(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...")


def printable(text: str) -> str:
    """Return a text from a file on one line: control characters are escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
