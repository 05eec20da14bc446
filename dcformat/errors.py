"""Everything that can be wrong with a file: one class for each kind of failure.

All classes derive from `FormatError`, so ``except FormatError`` suffices for callers that need to know only that a file
is unusable. Each class has a stable `code` (spec, "Errors") and a `headline` that begins its message. An instance says
where the failure is (`offset`, `field`) and what it is (`got`, `expected`); its message is built from these.
"""

from __future__ import annotations

from typing import ClassVar

#: Maximum number of characters that a message shows of `got` and of `expected`: a file may hold thousands.
_SHORT = 300


class FormatError(ValueError):
    """The bytes are not a valid dcformat file, or this reader must refuse them.

    Attributes
    ----------
    code : str
        Stable identifier of the kind of failure, the same in every version and in `spec/dcformat.md`.
    headline : str
        What is wrong, in words for people.
    offset : int or None
        Byte offset in the file at which the failure was noticed. In coded data, this is the start of the tensor's
        payload. In packed contents, it counts bytes of their plain form.
    field : str
        What was being read.
    got, expected : object
        What was found and what would have been valid; both are short and safe to print.
    path : str or None
        The file's name, set by the code that opened it.
    """

    code: ClassVar[str] = "E00"
    headline: ClassVar[str] = "invalid"

    def __init__(self, field: str, *, got: object = None, expected: object = None, offset: int | None = None) -> None:
        self.field, self.got, self.expected, self.offset = field, got, expected, offset
        self.path: str | None = None
        super().__init__(field)

    def __str__(self) -> str:
        where = f" at byte {self.offset}" if self.offset is not None else ""
        details = [] if self.expected is None else [f"expected {_short(self.expected)}"]
        details += [] if self.got is None else [f"found {_short(self.got)}"]
        parts = [*([self.path] if self.path else []), self.headline, self.field + where]
        return ": ".join((*parts, *([", ".join(details)] if details else []))) + f" [{self.code}]"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}..."


class NotDcfError(FormatError):
    """E01: the bytes do not start with the magic number: this is another kind of file."""

    code = "E01"
    headline = "not a .dcf file"


class VersionError(FormatError):
    """E02: this reader does not know a major version, a required section or a feature."""

    code = "E02"
    headline = "made for another version of the format"


class TruncatedError(FormatError):
    """E03: the bytes end before what they declare."""

    code = "E03"
    headline = "truncated"


class TrailingDataError(FormatError):
    """E04: some bytes belong to no part: they lie after the end, between parts, or are left over inside a part."""

    code = "E04"
    headline = "extra bytes"


class ChecksumError(FormatError):
    """E05: a CRC-32C or the content digest does not match; the bytes were altered."""

    code = "E05"
    headline = "damaged"


class LimitError(FormatError):
    """E06: a count, a length or another number is above the format's limits."""

    code = "E06"
    headline = "beyond a limit of the format"


class MemoryLimitError(FormatError):
    """E07: decoding would need more memory than the caller allows (`max_memory`)."""

    code = "E07"
    headline = "needs more memory than allowed"


class EncodingError(FormatError):
    """E08: a varint, a reserved bit, an id or a text is not a valid encoding of anything."""

    code = "E08"


class ShapeError(FormatError):
    """E09: a shape overflows, or does not fit the operator or the other tensors."""

    code = "E09"


class DuplicateError(FormatError):
    """E10: a name or section that may appear once appears again."""

    code = "E10"


class GraphError(FormatError):
    """E11: the network is wired wrongly: unknown tensors, forward references or invalid operator attributes."""

    code = "E11"


class HuffmanError(FormatError):
    """E12: code lengths do not form a complete prefix code within the length limit."""

    code = "E12"


class StreamError(FormatError):
    """E13: an entropy-coded stream ends early, does not end where it must, or holds an impossible symbol."""

    code = "E13"


class IndexRangeError(FormatError):
    """E14: a decoded position or code is out of range."""

    code = "E14"


class CodebookError(FormatError):
    """E15: codebook values are out of range, or contain the implied zero."""

    code = "E15"


class BaseError(FormatError):
    """E17: a delta is applied to a file other than its base."""

    code = "E17"
    headline = "not the base of this delta"


class DeltaError(FormatError):
    """E18: a file is a delta where one that stands alone is needed, or the other way round."""

    code = "E18"
    headline = "needs another kind of file"


class WorkLimitError(FormatError):
    """E16: reading or running the file would take more work than the caller allows (`max_work`)."""

    code = "E16"
    headline = "needs more work than allowed"


class naming_file:
    """Add the file's name to a `FormatError` of a block; a class, because a generator takes longer for each tensor."""

    __slots__ = ("_path",)

    def __init__(self, path: str | None) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, FormatError):
            error.path = error.path or self._path
