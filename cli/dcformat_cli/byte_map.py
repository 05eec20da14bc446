"""The places of the parts of a file, and the section of the specification that defines each (`inspect --hex`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dcformat import layout
from dcformat.codecs.payload_layout import parse_payload
from dcformat_cli.terminal import TextTable

if TYPE_CHECKING:
    from dcformat import DcfFile
    from dcformat.contents import TensorInfo

#: Bytes that a row shows.
_SHOWN = 16

#: The sections of the specification for each part, and for each coder's chunks.
_FILE, _CONTENTS, _PAYLOADS, _DIGEST = "2 File", "3 Contents", "6 Payloads", "7 Content digest"
_CHUNKS = {
    layout.CODER_RAW: "6.2 Packed chunks", layout.CODER_HUFFMAN: "6.2 Packed chunks",
    layout.CODER_ADAPTIVE: "coders.md", layout.CODER_MIXING: "coders.md", layout.CODER_PLANES: "6.4 Value blocks",
    layout.CODER_TABLES: "6.5 Tables by place", layout.CODER_PREDICTION: "coders.md",
}  # fmt: skip


class FilePart(NamedTuple):
    """A part of a file: the offset of its first byte, all its bytes or their beginning, and what it is."""

    offset: int
    size: int
    what: str
    section: str
    data: bytes


def file_parts(file: DcfFile) -> Iterator[FilePart]:
    """Yield the parts of a file, in order."""
    contents = file.ledger()[1].bytes
    sizes = [
        ("magic", 4, _FILE), ("version", 2, _FILE), ("length of the contents", 4, _FILE),
        ("contents: names, shapes, network, metadata", contents, _CONTENTS), ("CRC-32C", layout.CRC_BYTES, _FILE),
    ]  # fmt: skip
    for block, infos in _blocks(file).items():
        sizes += [(f"payload of {info.name}", info.payload_bytes, _PAYLOADS) for info in infos]
        sizes.append((f"CRC-32C of data block {block}", layout.CRC_BYTES, _FILE))
    sizes.append(("content digest", layout.DIGEST_BYTES, _DIGEST))
    offset = 0
    for what, size, section in sizes:
        yield FilePart(offset, size, what, section, file.read(offset, min(size, _SHOWN)))
        offset += size


def tensor_parts(file: DcfFile, name: str) -> Iterator[FilePart]:
    """Yield the parts of a tensor's payload: the part before its chunks, and each chunk."""
    info = file.info(name)
    info = info if info.copy_of is None else file.info(info.copy_of)
    payload = file.payload(name)
    parsed = parse_payload(info, np.frombuffer(payload, np.uint8))
    start = payload_offset(file, info)
    chunks = [chunk.size for chunk in parsed.chunks]
    head = len(payload) - sum(chunks)
    section = _CHUNKS[parsed.coding.coder]
    named = count(1)
    sizes = [(f"{name}: the part before the chunks", head, _PAYLOADS)]
    sizes += [(f"{name}: chunk {next(named)} of {len(chunks)}", size, section) for size in chunks]
    offset = 0
    for what, size, where in sizes:
        if size:
            yield FilePart(start + offset, size, what, where, payload[offset : offset + min(size, _SHOWN)])
        offset += size


def payload_offset(file: DcfFile, info: TensorInfo) -> int:
    """Return the offset of a payload in the file."""
    before = sum(
        sum(each.payload_bytes for each in infos) + layout.CRC_BYTES
        for block, infos in _blocks(file).items()
        if block < info.block
    )
    return layout.PREFIX_BYTES + file.ledger()[1].bytes + layout.CRC_BYTES + before + info.offset


def _blocks(file: DcfFile) -> dict[int, list[TensorInfo]]:
    """Return the tensors whose payloads are in each data block, in order; nothing else is in them."""
    blocks: dict[int, list[TensorInfo]] = {}
    for info in map(file.info, file.names):
        if info.copy_of is None:
            blocks.setdefault(info.block, []).append(info)
    return blocks


def as_json(parts: Sequence[FilePart]) -> list[dict[str, Any]]:
    """Return the parts for programs."""
    return [
        {"offset": p.offset, "bytes": p.size, "what": p.what, "section": p.section, "hex": p.data.hex()} for p in parts
    ]


def table(parts: Sequence[FilePart]) -> TextTable:
    """Return the parts with the beginning of their bytes."""
    rows = [(p.what, p.section, f"{p.offset:#x}", f"{p.size:,}", _hex(p)) for p in parts]
    return TextTable(
        "parts, with the sections of the specification", ("part", "section", "offset", "bytes", "hex"), rows
    )


def _hex(part: FilePart) -> str:
    text = part.data.hex(" ") + (" ..." if part.size > len(part.data) else "")
    return text.ljust(3 * _SHOWN + 3)
