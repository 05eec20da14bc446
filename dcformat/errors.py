"""Everything that can be wrong with a file, one class for each kind of failure.

All are `FormatError`, so ``except FormatError`` is enough for callers that only want to know that a file is unusable.
Each class has a stable `code` (spec section "Errors") and a `headline`, with which its message begins. Instances say
where (`offset`, `field`) and what (`got`, `expected`); the message is built from these.
"""

from __future__ import annotations

from typing import ClassVar

#: A message shows at most this many characters of what was found and expected: a file may hold thousands of them.
_SHORT = 300


class FormatError(ValueError):
    """A file (or bytes) that is not a valid dcformat file, or that this reader must refuse.

    Attributes
    ----------
    code : str
        Stable identifier of the kind of failure, the same in every version and in `spec/dcformat.md`.
    headline : str
        What is the matter, for people.
    offset : int or None
        Byte offset in the file where the failure was noticed. For anything coded it is where the coded part begins: a
        tensor's payload. For packed contents it counts in their plain form.
    field : str
        What was being read.
    got, expected : object
        What was found there and what would have been valid; both are short and safe to print.
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
    """E01: the bytes do not start with the magic number: another kind of file."""

    code = "E01"
    headline = "not a .dcf file"


class VersionError(FormatError):
    """E02: a major version, required section or feature that this reader does not know."""

    code = "E02"
    headline = "made for another version of the format"


class TruncatedError(FormatError):
    """E03: the bytes end before what they declare."""

    code = "E03"
    headline = "truncated"


class TrailingDataError(FormatError):
    """E04: bytes that belong to nothing: after the end, between parts, or left over inside one."""

    code = "E04"
    headline = "bytes that belong to nothing"


class ChecksumError(FormatError):
    """E05: a CRC-32C or the content digest does not match: the bytes were altered."""

    code = "E05"
    headline = "damaged"


class LimitError(FormatError):
    """E06: a count, rank, name length or nesting above the public limits."""

    code = "E06"
    headline = "beyond a limit of the format"


class MemoryLimitError(FormatError):
    """E07: decoding would need more memory than the caller allows (`max_memory`)."""

    code = "E07"
    headline = "needs more memory than allowed"


class EncodingError(FormatError):
    """E08: a varint, reserved bit, id or text that is not a valid encoding of anything."""

    code = "E08"


class ShapeError(FormatError):
    """E09: shapes that overflow, or that do not fit the operator or the other tensors."""

    code = "E09"


class DuplicateError(FormatError):
    """E10: a name or section that may appear once appears again."""

    code = "E10"


class GraphError(FormatError):
    """E11: the network is wired wrongly: unknown tensors, forward references, bad operator attributes."""

    code = "E11"


class HuffmanError(FormatError):
    """E12: code lengths that do not form a complete prefix code within the length limit."""

    code = "E12"


class StreamError(FormatError):
    """E13: an entropy-coded stream that ends early, does not end where it must, or holds an impossible symbol."""

    code = "E13"


class IndexRangeError(FormatError):
    """E14: a decoded position or codebook id outside its range."""

    code = "E14"


class CodebookError(FormatError):
    """E15: codebook values that are not strictly increasing, contain the implied zero, or are not finite."""

    code = "E15"


class WorkLimitError(FormatError):
    """E16: reading or running the file would take more work than the caller allows (`max_work`)."""

    code = "E16"
    headline = "needs more work than allowed"
