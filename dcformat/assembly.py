"""Assembles a file from coded tensors, wherever their payloads are kept until then (spec, "File")."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO

from dcformat import layout
from dcformat.codecs import Mode
from dcformat.contents_writer import assemble, copy_entry, entry_end
from dcformat.digest import ContentDigest, crc32c
from dcformat.errors import LimitError
from dcformat.records import record


@record(eq=False)
class CodedTensor:
    """A tensor that is ready to be stored.

    Attributes
    ----------
    name : str
    digest : bytes
        Its `tensor_digest`; a tensor with the digest of an earlier one is stored as a copy of that.
    head : bytes
        The beginning of its table entry, the bytes of an `EntryHead`.
    size : int
        Bytes of the payload.
    payload : callable
        Yields the payload, part by part.
    """

    name: str
    digest: bytes
    head: bytes
    size: int
    payload: Callable[[], Iterable[bytes]]


def write_file(
    tensors: Sequence[CodedTensor], sections: Sequence[tuple[int, bytes]], mode: Mode, file: BinaryIO
) -> int:
    """Write a file front to back.

    Parameters
    ----------
    tensors : sequence of CodedTensor
        In the file's order.
    sections : sequence of (id, bytes)
        All sections of the contents except the tensor table, ids ascending (`contents.small_sections`).
    mode : {'fast', 'small', 'tiny'}
        Whether contents may be packed.
    file : binary file object

    Returns
    -------
    int
        The number of bytes written.

    Raises
    ------
    LimitError
        The contents are longer than the format allows.
    """
    digest = ContentDigest(sections)
    table: list[bytes] = []
    blocks: list[list[CodedTensor]] = []
    originals: dict[bytes, int] = {}
    used = 0
    for tensor in tensors:
        digest.add(tensor.name, tensor.digest)
        if tensor.digest in originals:
            table.append(copy_entry(tensor.name, len(originals) - originals[tensor.digest]))
            continue
        originals[tensor.digest] = len(originals)
        is_new = not blocks or used + tensor.size > layout.MAX_SHARED_BLOCK_BYTES
        if is_new:
            blocks.append([])
            used = 0
        blocks[-1].append(tensor)
        used += tensor.size
        table.append(tensor.head + entry_end(tensor.size, is_new))
    front = _front(assemble(table, sections), mode)
    size = file.write(front + crc32c(front))
    for block in blocks:
        check = crc32c(b"")
        for tensor in block:
            for part in tensor.payload():
                check = crc32c(part, check)
                size += file.write(part)
        size += file.write(check)
    return size + file.write(digest.take())


def _front(contents: bytes, mode: Mode) -> bytes:
    """Return the prefix and the contents, packed if that is shorter; never in `fast`, because unpacking takes time."""
    if len(contents) > layout.MAX_CONTENTS_BYTES:
        raise LimitError("contents", got=f"{len(contents)} bytes", expected=f"at most {layout.MAX_CONTENTS_BYTES}")
    packed = contents
    if mode != "fast":
        from dcformat.codecs import text

        packed = text.pack(contents, layout.CONTENTS_PRESET)
    shorter = len(packed) < len(contents)
    length = len(packed) | layout.CONTENTS_PACKED if shorter else len(contents)
    prefix = layout.MAGIC + struct.pack("<BBI", layout.MAJOR, layout.MINOR, length)
    return prefix + (packed if shorter else contents)
