"""A decoder of dcformat files, version 1.0, written from `dcformat.md` and `coders.md` alone.

    python reference_decoder.py FILE         prints what the file holds as JSON
    python reference_decoder.py DELTA BASE prints what the file holds that a delta makes from its base

It needs Python's standard library only and shares no code with the package, so both have the limits, the numbers of
operators and the preset. Every function says which section of the specification it follows. It is slow and meant to be
read: this file has the container (sections 2 to 4, and 8), `reference_reader.py` the notation (section 1),
`reference_graph.py` the graph (section 5), `reference_payloads.py` the payloads (section 6), `reference_digest.py` the
digest (section 7), `reference_deltas.py` deltas (section 15), and `reference_coders.py`, `reference_mixing.py` and
`reference_text.py` the coders (`coders.md`).
"""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import dataclass, field, replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from reference_deltas import Delta, new_tensors, read_delta
from reference_digest import content_digest
from reference_graph import read_graph
from reference_payloads import decode_payload
from reference_reader import DTYPES, DecodeError, Entry, Reader, Tensor, check, finite_f32
from reference_text import decode_text

# Section 9, "Limits" (those of graph and payloads are in their files).
MAX_ELEMENTS = 1 << 40
MAX_NAME = 255
MAX_TENSORS = 1 << 16
MAX_CODEBOOK = 1 << 16
MAX_CONTENTS = 1 << 24
MAX_LABELS = 1 << 16
MAX_LABEL = 1 << 10
MAX_METADATA = 1 << 10
MAX_METADATA_VALUE = 1 << 16
MAX_SAMPLES = 1 << 10
MAX_SHARED_BLOCK = 1 << 16

#: Section 9: the preset of the text coder.
PRESET = bytes.fromhex(
    "1166656174757265732e302e7765696768741066656174757265732e31302e6269617313636c61737369666965722e312e77656967687415"
    "6c61796572312e302e636f6e76312e776569676874136c61796572342e312e636f6e76322e6269617313646f776e73616d706c652e302e77"
    "65696768740f636f6e765f66696e616c2e626961731466697265322e73717565657a652e7765696768741666697265332e657870616e6431"
    "78312e7765696768741666697265342e657870616e643378332e776569676874020672656369706507636c61737369630473656564013002"
    "067265636970650764656661756c740473656564013139d6053e48bf9d3e000000000000803f019001080c636f6e76312e77656967687484"
    "14010505860207df010a636f6e76312e626961732114240c636f6e76322e7765696768748432140505ad6309e64b0a636f6e76322e626961"
    "7321323e0a6663312e77656967687444f403a006bfae0c09a6b409086663312e6269617321f403c8030a6663322e776569676874440af403"
    "cb1309ae0f086663322e62696173210a1a021e03011c1c01000000000000803f084200010442020304084104050341060703150a01300131"
    "0132013301340135013601370138013904160206726563697065067265636f7264047365656401320165060a6663312e77656967687444ac"
    "029006e2a60709efcc05086663312e6269617321ac0298020a6663322e7765696768744464ac02b47709e25b086663322e6269617321646a"
    "0a6663332e776569676874440a649504099e03086663332e62696173210a1a021801900601000000000000803f0541000103410203034104"
    "0503150a013001310132013301340135013601370138013904160206726563697065067265636f726404736565640131019001080c636f6e"
    "76312e7765696768748414010505870204d3010a636f6e76312e626961732114240c636f6e76322e7765696768748432140505ed6209944b"
    "0a636f6e76322e6269617321323e0a6663312e77656967687444f403a0068db00c09deae09086663312e6269617321f403c4030a6663322e"
    "776569676874440af403ea1309a80f086663322e62696173210a18021e03011c1c01000000000000803f0842000104420203040841040503"
    "41060703150a01300131013201330134013501360137013801390165060a6663312e77656967687444ac0290069ea50709d3c90508666331"
    "2e6269617321ac0294020a6663322e7765696768744464ac02af7709b65b086663322e6269617321646a0a6663332e776569676874440a64"
    "fb03059403086663332e62696173210a1a021801900601000000000000803f05410001034102030341040503150a01300131013201330134"
    "01350136013701380139"
)

#: The dtypes that may have codebooks, and that networks compute with: those before this number.
FEW_DTYPES = 4
CONSTANT, DENSE, DENSE_SHARED, SPARSE, SPARSE_SHARED, COPY = range(6)
#: The kind of a tensor whose form and dtype are in the byte after it.
EXTENDED = 7


@dataclass
class File:
    """The contents of a file."""

    version: tuple[int, int]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    graph: dict[str, Any] | None = None
    labels: list[str] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    self_test: tuple[int, int, bytes] | None = None
    extensions: list[tuple[int, bytes]] = field(default_factory=list)
    digest: bytes = b""
    delta: Delta | None = None
    #: The bodies of the sections but the tensor table, by id.
    sections: dict[int, bytes] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------------- 2. File


def crc32c(data: bytes) -> int:
    """Section 2: polynomial 0x1EDC6F41, reflected (0x82F63B78), initial value and final xor 0xFFFFFFFF."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ crc_step(crc & 255 ^ byte)
    return crc ^ 0xFFFFFFFF


@cache
def crc_step(crc: int) -> int:
    """Return the CRC after eight more steps."""
    for _ in range(8):
        crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


def decode(data: bytes) -> File:
    """Section 2, "File": prefix, contents, data blocks, digest. Raises `DecodeError` with the code of section 11."""
    reader = Reader(data)
    check(data != b"" and data[:4] == b"\x89DCF"[: len(data)], "E01", "[F1] the magic does not match")
    reader.take(4)
    major, minor = reader.u8(), reader.u8()
    check(major == 1, "E02", "[F2] the major version is not 1")
    length = reader.uint(4)
    packed, length = length >> 31, length & 0x7FFFFFFF
    check(length <= MAX_CONTENTS, "E06", "[F4] length of the contents")
    contents = reader.take(length)
    check(reader.uint(4) == crc32c(data[: 10 + length]), "E05", "[F6] checksum of the contents")
    if packed:
        contents = decode_text(contents, PRESET, MAX_CONTENTS)
    sections = read_contents(Reader(contents))
    file = File((major, minor), sections={kind: body for kind, body in sections.items() if kind != 1})
    entries = read_table(Reader(sections[1]))
    read_sections(file, sections, entries)
    blocks = split_blocks(entries)
    rest = sum(entry.length for entry in entries) + 4 * len(blocks) + 8
    check(reader.left() >= rest, "E03", "[F5] the file ends early")
    check(reader.left() <= rest, "E04", "[F5] bytes after the digest")
    found: dict[str, Tensor] = {}
    for block in blocks:
        payloads = reader.take(sum(entry.length for entry in block))
        check(reader.uint(4) == crc32c(payloads), "E05", "[F6] checksum of a data block")
        at = 0
        for entry in block:
            found[entry.name] = decode_payload(Reader(payloads[at : at + entry.length]), entry)
            at += entry.length
    file.tensors = {entry.name: found[entry.original or entry.name] for entry in entries}
    file.digest = reader.take(8)
    check(file.digest == content_digest(sections, file.tensors), "E05", "[D1] the content digest")
    return file


def apply(data: bytes, base_data: bytes) -> File:
    """Section 15, "Deltas": the file that a delta makes from its base."""
    change, base = decode(data), decode(base_data)
    delta = change.delta
    check(delta is not None, "E18", "not a delta")
    assert delta is not None
    check(base.delta is None and base.digest == delta.base, "E17", "[B7] another base")
    sections = {}
    for kind, body in delta.sections:
        check(body is not None or kind in base.sections, "E17", "[B7] a section that the base does not have")
        sections[kind] = base.sections[kind] if body is None else body
    file = File(change.version, new_tensors(delta, change.tensors, base.tensors), sections=sections)
    entries = [
        Entry(name, DENSE, tensor.dtype, tensor.size, tensor.shape, tensor.scale, 0, 0, 0, True)
        for name, tensor in file.tensors.items()
    ]
    read_sections(file, sections, entries)
    file.digest = content_digest(sections, file.tensors)
    check(file.digest == delta.result, "E05", "[B8] the content digest of the new file")
    return file


def split_blocks(entries: list[Entry]) -> list[list[Entry]]:
    """Section 4, "Blocks": a data block holds the payloads of consecutive tensors."""
    blocks: list[list[Entry]] = []
    for entry in entries:
        if entry.original is not None:
            continue
        if entry.begins_block:
            blocks.append([])
        blocks[-1].append(entry)
    for block in blocks:
        short = len(block) == 1 or sum(entry.length for entry in block) <= MAX_SHARED_BLOCK
        check(short, "E06", "[T15] a data block of several tensors")
    return blocks


# ------------------------------------------------------------------------------------------------ 3. Contents


def read_contents(reader: Reader) -> dict[int, bytes]:
    """Section 3, "Contents": section ids to bodies."""
    sections: dict[int, bytes] = {}
    last = -1
    while reader.left():
        kind = reader.u8()
        check(kind not in sections, "E10", "[C2] a section again")
        check(kind > last, "E08", "[C1] sections that do not ascend")
        check(1 <= kind <= 6 or kind & 128 != 0, "E02", "[C4] an unknown section that is required")
        sections[kind] = reader.take(reader.varint(MAX_CONTENTS))
        last = kind
    check(1 in sections, "E08", "[C5] no tensor table")
    check(6 not in sections or not sections.keys() & {2, 3, 4, 5}, "E08", "[B1] a section of a delta")
    return sections


def read_sections(file: File, sections: dict[int, bytes], entries: list[Entry]) -> None:
    """Section 3: every section but the tensor table."""
    for kind, body in sections.items():
        reader = Reader(body)
        if kind == 2:
            file.graph = read_graph(reader, entries)
        elif kind == 3:
            count = reader.varint(MAX_LABELS)
            check(count > 0, "E08", "[C6] no labels")
            file.labels = [reader.text(MAX_LABEL) for _ in range(count)]
        elif kind == 4:
            file.metadata = read_metadata(reader)
        elif kind == 5:
            file.self_test = read_self_test(reader)
        elif kind == 6:
            file.delta = read_delta(reader, entries)
        elif kind & 128:
            file.extensions.append((kind, reader.take(reader.left())))  # [C3]
        else:
            continue
        reader.end("[N5] bytes left in a section")
    check(file.self_test is None or file.graph is not None, "E08", "[S3] a self-test without a graph")


def read_metadata(reader: Reader) -> dict[str, str]:
    """Section 3: pairs of texts; the keys ascend as byte strings."""
    count = reader.varint(MAX_METADATA)
    check(count > 0, "E08", "[C6] no metadata")
    metadata: dict[str, str] = {}
    last = b""
    for _ in range(count):
        key = reader.text(MAX_NAME)
        check(key != "", "E08", "[C9] an empty key")
        check(key not in metadata, "E10", "[C8] a key again")
        check(key.encode() > last, "E08", "[C7] keys that do not ascend")
        last = key.encode()
        metadata[key] = reader.text(MAX_METADATA_VALUE)
    return metadata


# -------------------------------------------------------------------------------------------- 4. Tensor table


def read_table(reader: Reader) -> list[Entry]:
    """Section 4, "Tensor table"."""
    entries: list[Entry] = []
    names = set()
    for _ in range(reader.varint(MAX_TENSORS)):
        entry = read_entry(reader, [entry for entry in entries if entry.original is None])
        check(entry.name not in names, "E10", "[T1] a name again")
        names.add(entry.name)
        check(entry.begins_block or bool(entries), "E08", "[T10] the first tensor does not begin a block")
        entries.append(entry)
    reader.end("[N5] bytes left in the tensor table")
    return entries


def read_entry(reader: Reader, originals: list[Entry]) -> Entry:
    """Section 4: the seven fields of a tensor, or the three of a copy; `originals` are the tensors before it."""
    name = reader.text(MAX_NAME)
    check(name != "", "E08", "[T14] an empty name")
    kind = reader.u8()
    form, number, rank = kind & 7, kind >> 3 & 3, kind >> 5
    if form == EXTENDED:
        check(number == 0, "E08", "[T18] bits 3 and 4 of an extended kind")
        more = reader.u8()
        form, number = more & 7, more >> 3
        check(FEW_DTYPES <= number < len(DTYPES), "E08", "[T19] the dtype of an extended kind")
        check(form in (CONSTANT, DENSE, SPARSE), "E08", "[T19] the form of an extended kind")
    dtype, size = DTYPES[number]
    check(form <= COPY, "E08", "[T2] an unknown form")
    if form == COPY:
        check(kind == COPY, "E08", "[T16] the kind of a copy")
        back = reader.varint(MAX_TENSORS)
        check(1 <= back <= len(originals), "E14", "[T17] a copy of nothing")
        return replace(originals[-back], name=name, length=0, begins_block=False, original=originals[-back].name)
    shape = tuple(reader.varint(MAX_ELEMENTS) for _ in range(rank))
    check(prod(n for n in shape if n) <= MAX_ELEMENTS, "E09", "[T5] too many elements")
    elements = prod(shape)
    check(form != CONSTANT or elements >= 2, "E08", "[T6] a constant of fewer than two elements")
    scale = 1.0
    if dtype == "int8":
        raw = reader.take(4)
        scale = struct.unpack("<f", raw)[0]
        check(finite_f32(raw) and scale > 0, "E08", "[T9] the scale")
    stored = {CONSTANT: 1, DENSE: elements, DENSE_SHARED: elements}.get(form)
    if stored is None:
        stored = reader.varint(MAX_ELEMENTS)
        check(stored <= elements, "E09", "[T7] more entries than elements")
    codebook = 0
    if form in (DENSE_SHARED, SPARSE_SHARED):
        codebook = reader.varint(MAX_CODEBOOK)
        check(codebook > 0, "E08", "[T8] an empty codebook")
    length = reader.varint((1 << 42) - 1)
    return Entry(name, form, dtype, size, shape, scale, stored, codebook, length >> 1, bool(length & 1))


# ----------------------------------------------------------------------------------------------- 8. Self-test


def read_self_test(reader: Reader) -> tuple[int, int, bytes]:
    """Section 8, "Self-test": seed, samples, digest."""
    seed = reader.varint((1 << 32) - 1)
    samples = reader.varint(MAX_SAMPLES)
    check(samples > 0, "E08", "[S2] a self-test without samples")
    return seed, samples, reader.take(8)


def self_test_pixels(seed: int, count: int) -> bytes:
    """Section 8: the first `count` pixels that SplitMix64 gives from `seed`."""
    mask = (1 << 64) - 1
    pixels = bytearray()
    for i in range(1, count + 1):
        z = seed + i * 0x9E3779B97F4A7C15 & mask
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        pixels.append((z ^ z >> 31) >> 56)
    return bytes(pixels)


# ------------------------------------------------------------------------------------------------ command line


def summary(file: File) -> dict[str, Any]:
    """Return the contents of a file in a form that JSON can express; tensors by the SHA-256 of their dense bytes."""
    pixels = self_test_pixels(file.self_test[0], 8).hex() if file.self_test else ""
    return {
        "version": list(file.version),
        "tensors": [
            {"name": name, "shape": list(tensor.shape), "dtype": tensor.dtype, "scale": tensor.scale, **tensor.hashes()}
            for name, tensor in file.tensors.items()
        ],
        "graph": file.graph,
        "labels": file.labels,
        "metadata": file.metadata,
        "self_test": file.self_test and [*file.self_test[:2], file.self_test[2].hex(), pixels],
        "extensions": [[kind, body.hex()] for kind, body in file.extensions],
        "digest": file.digest.hex(),
        **({"delta": file.delta.summary()} if file.delta else {}),
    }


def main() -> int:
    """Print the summary of the file named on the command line."""
    if len(sys.argv) not in (2, 3):
        print("usage: python reference_decoder.py FILE [BASE]", file=sys.stderr)
        return 2
    try:
        data = [Path(name).read_bytes() for name in sys.argv[1:]]
        print(json.dumps(summary(decode(*data) if len(data) == 1 else apply(*data)), indent=1))
    except DecodeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
