"""What a fuzzer runs: every way into the reader, with what must hold whatever the bytes are.

`exercise` is the property: any bytes parse or raise `FormatError`, within `MAX_MEMORY`; and what parses is a model that
the writer takes, writes, and reads back bit for bit. `repair` makes checksums right, so that a mutation reaches the
code behind them.
"""

from __future__ import annotations

import struct

import numpy as np

import dcformat
from dcformat import layout
from dcformat.codecs import text
from dcformat.contents import parse, small_sections
from dcformat.digest import ContentDigest, crc32c
from dcformat.errors import FormatError
from dcformat.model import Model, Tensor
from dcformat.validate import check_tensor

#: What a file may take here: small, so that a run is quick, and a bomb is refused.
MAX_MEMORY = 1 << 20
#: Models of more stored entries than this are not written again: it would take most of the time.
REWRITTEN = 2000


def exercise(data: bytes, *, thorough: bool = True) -> bool:
    """Read `data` in every way; return whether it is a valid file. Raises only if the reader or writer is wrong.

    Unless `thorough`, what its bits are for is left out, and so is writing it again.
    """
    try:
        with dcformat.open(data, max_memory=MAX_MEMORY) as file:
            if sum(row.bytes for row in file.ledger()) != file.size or file.size != len(data):
                raise AssertionError("the ledger does not add up")
            model = file.model()
            for name in file.names if thorough else ():
                _account(file, name)
            file.verify()
    except FormatError as error:
        str(error)
        return False
    for name, tensor in model.tensors.items():
        check_tensor(name, tensor)
    if thorough and sum(len(tensor.data) + tensor.rows for tensor in model.tensors.values()) <= REWRITTEN:
        _rewrite(model)
    return True


def _account(file: dcformat.DcfFile, name: str) -> None:
    try:
        file.usage(name)
    except FormatError as error:
        # To measure takes more memory than to read.
        if error.code != "E07":
            raise AssertionError(f"usage of a tensor that decodes: {error}") from error


def _rewrite(model: Model) -> None:
    again = dcformat.load(dcformat.dumps(model))
    for name, tensor in model.tensors.items():
        if not _same(tensor, again.tensors[name]):
            raise AssertionError(f"{name!r} is not what was written")


def _same(a: Tensor, b: Tensor) -> bool:
    pairs = ((a.data, b.data), (a.codebook, b.codebook), (a.indptr, b.indptr), (a.indices, b.indices))
    return (a.shape, a.dtype, a.scale) == (b.shape, b.dtype, b.scale) and all(
        (x is None and y is None) or (x is not None and y is not None and x.tobytes() == y.tobytes()) for x, y in pairs
    )


# --- checksums made right -------------------------------------------------------------------------------------------


def split(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Return version and plain contents' bytes, and what comes after them, of a file that may be wrong."""
    head, length = data[4:6], int.from_bytes(data[6:10], "little")
    packed, length = length & layout.CONTENTS_PACKED, length & ~layout.CONTENTS_PACKED
    contents, rest = data[10 : 10 + length], data[14 + length :]
    if packed:
        try:
            contents = text.unpack(contents, layout.MAX_PACKED_BYTES, layout.CONTENTS_PRESET)
        except FormatError:
            contents = b""
    return head, contents, rest


def join(head: bytes, contents: bytes, rest: bytes) -> bytes:
    """Return a file of plain contents whose size and checksums are right, as far as its contents can be read.

    The content digest is made right if the tensors can be decoded.
    """
    front = layout.MAGIC + head[:2].ljust(2, b"\1") + struct.pack("<I", len(contents)) + contents
    front += crc32c(front)
    try:
        blocks = parse(contents).blocks
    except FormatError:
        return front + rest
    need = sum(blocks) + layout.CRC_BYTES * len(blocks) + layout.DIGEST_BYTES
    if need > 2 * len(rest) + 4096:
        return front + rest
    rest = rest.ljust(need, b"\0")[:need]
    out, at = bytearray(front), 0
    for length in blocks:
        block = rest[at : at + length]
        out += block + crc32c(block)
        at += length + layout.CRC_BYTES
    return bytes(out) + _digest(bytes(out) + bytes(layout.DIGEST_BYTES))


def repair(data: bytes) -> bytes:
    """Make a file's size, checksums and digest right, its contents as they are, packed or plain."""
    if len(data) < layout.PREFIX_BYTES:
        return layout.MAGIC + data[4:]
    length = int.from_bytes(data[6:10], "little")
    length = min(length & ~layout.CONTENTS_PACKED, len(data) - 10) | length & layout.CONTENTS_PACKED
    stored = length & ~layout.CONTENTS_PACKED
    _, contents, rest = split(data)
    front = layout.MAGIC + data[4:6] + struct.pack("<I", length) + data[10 : 10 + stored]
    plain = join(data[4:6], contents, rest)
    return front + crc32c(front) + plain[len(contents) + layout.PREFIX_BYTES + layout.CRC_BYTES :]


def _digest(data: bytes) -> bytes:
    try:
        model = dcformat.load(data, max_memory=MAX_MEMORY)
    except FormatError:
        return bytes(layout.DIGEST_BYTES)
    digest = ContentDigest(small_sections(model))
    for tensor in model.tensors.values():
        digest.add(tensor)
    return digest.take()


def mutate(data: bytes, seed: int, change: object) -> bytes:
    """Change the contents or a payload of a file, and make the rest right again.

    Parameters
    ----------
    data : bytes
    seed : int
        Decides what is changed.
    change : callable
        From bytes to bytes of any length.
    """
    assert callable(change)
    random = np.random.default_rng(seed)
    head, contents, rest = split(data)
    what = random.integers(0, 10)
    if what < 4:
        return join(head, change(contents), rest)
    if what < 8:
        return _payload_changed(head, contents, rest, random, change)
    return repair(change(data))


def _payload_changed(head: bytes, contents: bytes, rest: bytes, random: np.random.Generator, change: object) -> bytes:
    """Change one payload, and say in the table how long it is now."""
    assert callable(change)
    try:
        found = parse(contents)
    except FormatError:
        return join(head, contents, change(rest))
    if not found.tensors:
        return join(head, change(contents), rest)
    info = found.tensors[random.integers(0, len(found.tensors))]
    start = sum(found.blocks[: info.block]) + layout.CRC_BYTES * info.block + info.offset
    new = change(rest[start : start + info.payload_bytes])
    rest = rest[:start] + new + rest[start + info.payload_bytes :]
    if len(new) != info.payload_bytes:
        contents = _lengthened(contents, info.name, info.payload_bytes, len(new))
    return join(head, contents, rest)


def _lengthened(contents: bytes, name: str, old: int, new: int) -> bytes:
    """Put another payload length behind a name: found by its bytes, which may go wrong, as a mutation may."""
    from dcformat.cursor import varint

    at = contents.find(name.encode())
    for fresh in (1, 0):
        where = contents.find(varint(2 * old + fresh), at + len(name.encode()))
        if at >= 0 and 0 <= where <= at + len(name.encode()) + 64:
            tail = contents[where + len(varint(2 * old + fresh)) :]
            changed = contents[:where] + varint(2 * new + fresh) + tail
            return _table_sized(changed, len(changed) - len(contents))
    return contents


def _table_sized(contents: bytes, more: int) -> bytes:
    """Correct the length of the tensor table, the first section."""
    from dcformat.cursor import Cursor, varint

    try:
        cursor = Cursor(contents[1:])
        length = cursor.varint("section length", layout.MAX_CONTENTS_BYTES)
    except FormatError:
        return contents
    return contents[:1] + varint(max(length + more, 0)) + contents[1 + cursor.offset :]
