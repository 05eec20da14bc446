"""Everything that can be wrong with a file, one class for each kind of failure.

All are `FormatError`, so ``except FormatError`` is enough for callers that only want to know that a file is unusable.
Each class has a stable `code` (spec section "Errors"); instances carry where (`offset`, `field`) and what (`got`,
`expected`). Classes are never raised bare: the message is built from those four.
"""

from __future__ import annotations

from typing import ClassVar

#: Of what was found and expected, a message shows this many characters at most: a file may have thousands of them.
_SHORT = 300


class FormatError(ValueError):
    """A file (or bytes) that is not a valid dcformat file, or that this reader must refuse.

    Attributes
    ----------
    code : str
        Stable identifier of the kind of failure, the same in every version and in `spec/dcformat.md`.
    offset : int or None
        Byte offset in the file where the failure was noticed. Of what is coded, where that begins: a tensor's payload.
        Of packed contents, the offset in their plain form.
    field : str
        What was being read.
    got, expected : object
        What was found there and what would have been valid; both are short and safe to print.
    path : str or None
        The file's name, set by the code that opened it.
    """

    code: ClassVar[str] = "E00"

    def __init__(self, field: str, *, got: object = None, expected: object = None, offset: int | None = None) -> None:
        self.field, self.got, self.expected, self.offset = field, got, expected, offset
        self.path: str | None = None
        super().__init__(field)

    def __str__(self) -> str:
        where = f" at byte {self.offset}" if self.offset is not None else ""
        text = f"{self.code} {self.field}{where}"
        if self.expected is not None:
            text += f": expected {_short(self.expected)}"
        if self.got is not None:
            text += f"{',' if self.expected is not None else ':'} found {_short(self.got)}"
        return f"{self.path}: {text}" if self.path else text


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}..."


class NotDcfError(FormatError):
    """E01: the bytes do not start with the magic number: another kind of file."""

    code = "E01"


class VersionError(FormatError):
    """E02: a major version, required section or feature that this reader does not know."""

    code = "E02"


class TruncatedError(FormatError):
    """E03: the bytes end before what they declare."""

    code = "E03"


class TrailingDataError(FormatError):
    """E04: bytes that belong to nothing: after the end, between parts, or left over inside one."""

    code = "E04"


class ChecksumError(FormatError):
    """E05: a CRC-32C or the content digest does not match: the bytes were altered."""

    code = "E05"


class LimitError(FormatError):
    """E06: a count, rank, name length or nesting above the public limits."""

    code = "E06"


class MemoryLimitError(FormatError):
    """E07: decoding would need more memory than the caller allows (`max_memory`)."""

    code = "E07"


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
