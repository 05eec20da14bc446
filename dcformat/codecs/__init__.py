"""Coders of a tensor's payload, by id (spec, "Payloads").

Codes and positions have the coders 0 (fixed width), 1 (Huffman), 2 (adaptive binary) and 3 (mixing); values without a
codebook also have 4 (planes), 5 (tables) and, if they are int8, 6 (prediction).

Reading goes from `payload_layout` (a payload's parts) to `payload_reader` and to `chunk_readers`, which decode chunks.
Writing goes from `payload_writer` to `packed_writer` (coders 0 and 1) and `context_writer` (coders 2 and 3).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Literal, Protocol, cast

from dcformat import layout
from dcformat.errors import LimitError

if TYPE_CHECKING:
    from dcformat.codecs.alphabet import Alphabet
    from dcformat.codecs.csr_view import CsrView
    from dcformat.codecs.rangecoder import Decoder, Encoder

#: The coders that a writer may use: `tiny` allows all, `small` all but 3 and 6, `fast` all but 2, 3 and 6.
Mode = Literal["fast", "small", "tiny"]
MODES: tuple[Mode, ...] = ("fast", "small", "tiny")
#: The bridge over long runs of zeros: an escape, or a filler entry as in Deep Compression.
RelativeIndex = Literal["escape", "filler"]

#: The users' names for the coders.
CODER_NAMES = {
    layout.CODER_RAW: "raw",
    layout.CODER_HUFFMAN: "huffman",
    layout.CODER_ADAPTIVE: "adaptive",
    layout.CODER_MIXING: "mixing",
    layout.CODER_PLANES: "planes",
    layout.CODER_TABLES: "tables",
    layout.CODER_PREDICTION: "prediction",
}


class ContextCoder(Protocol):
    """Coder 2 or 3, whose chunks are range coder streams."""

    def suits(self, lines: int, length: int) -> bool:
        """Return whether a matrix is small enough for the coder."""

    def encode(self, encoder: Encoder, view: CsrView, alphabet: Alphabet) -> None:
        """Append the positions and code symbols of a matrix."""

    def decode(self, decoder: Decoder, lines: int, length: int, nnz: int, alphabet: Alphabet) -> CsrView:
        """Read what `encode` wrote."""


def fits(coder: int, lines: int, length: int) -> bool:
    """Return whether a chunk is small enough for coder 2, 3 or 6 to code its elements one by one."""
    return lines * length <= layout.MOST_ELEMENTS[coder] and length <= layout.MOST_COLUMNS


def require_fit(coder: int, lines: int, length: int) -> None:
    """Raise `LimitError` for a chunk that does not fit (`fits`)."""
    if not fits(coder, lines, length):
        raise LimitError(
            f"coder {coder}'s elements",
            got=f"{lines:,} x {length:,}",
            expected=f"at most {layout.MOST_ELEMENTS[coder]:,}, in lines of at most {layout.MOST_COLUMNS:,}",
        )


def context_coder(coder: int) -> ContextCoder:
    """Return the module of coder 2 or 3, imported when it is needed."""
    return cast(ContextCoder, import_module(f"dcformat.codecs.{CODER_NAMES[coder]}"))
