"""A kernel's machine code as one position-independent image, and the image's file form.

The image is linked when it is made: code and constants lie in one block that refers to itself only by relative
distances. It reaches a few functions of Python and of the C library through slots of eight bytes, which the loader
fills. So the loader needs no linker: it copies the image, fills the slots and makes the memory executable.
"""

from __future__ import annotations

import struct
from functools import cache
from importlib import import_module
from typing import Any

from dcformat.records import record

MAGIC = b"DCFKRNL\x01"
_DIGEST = 32
_HEAD = struct.Struct("<III")
_IMPORT = struct.Struct("<IB")


def sha256(data: bytes) -> bytes:
    """Return the SHA-256 of `data`, without loading OpenSSL (3 ms and 4 MB) if Python has its own code for it."""
    return bytes(_implementation()(data).digest())


@cache
def _implementation() -> Any:
    for module in ("_sha2", "_sha256", "hashlib"):  # Python 3.12 and later; 3.11; builds without either
        try:
            return import_module(module).sha256
        except ImportError:
            continue
    raise ImportError("hashlib")


@record
class CodeImage:
    """Machine code and constants, the entry's offset, and the slots that the loader fills.

    Parameters
    ----------
    code : bytes
        The block; it starts at a page, and all of it is mapped readable and executable.
    entry : int
        Offset of the function ``PyObject *(PyObject *self, PyObject *const *args, Py_ssize_t nargs)``.
    imports : tuple of (int, str)
        The offset of each eight-byte slot, and the name whose address belongs in it.
    """

    code: bytes
    entry: int
    imports: tuple[tuple[int, str], ...]

    def pack(self, key: bytes) -> bytes:
        """Return the file form: the magic number, the SHA-256 of the rest, `key`, then the image."""
        parts = [key, _HEAD.pack(len(self.code), self.entry, len(self.imports))]
        for offset, name in self.imports:
            encoded = name.encode("ascii")
            parts += [_IMPORT.pack(offset, len(encoded)), encoded]
        body = b"".join((*parts, self.code))
        return MAGIC + sha256(body) + body


def unpack(data: bytes, key: bytes) -> CodeImage | None:
    """Return the image in a file, or None unless it is complete, unaltered and made for `key`."""
    start = len(MAGIC) + _DIGEST
    body = data[start:]
    if data[: len(MAGIC)] != MAGIC or len(body) < _DIGEST + _HEAD.size or data[len(MAGIC) : start] != sha256(body):
        return None
    if body[:_DIGEST] != key:
        return None
    size, entry, count = _HEAD.unpack_from(body, _DIGEST)
    at = _DIGEST + _HEAD.size
    imports = []
    for _ in range(count):
        offset, length = _IMPORT.unpack_from(body, at)
        at += _IMPORT.size
        imports.append((offset, body[at : at + length].decode("ascii")))
        at += length
    code = body[at:]
    if len(code) != size or entry >= size or any(offset + 8 > size for offset, _ in imports):
        return None
    return CodeImage(code, entry, tuple(imports))
