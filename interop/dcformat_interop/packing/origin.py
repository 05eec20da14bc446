"""The data by which a file restores the safetensors files that it was made from: their headers, names and index.

It is an ignorable section of the contents (spec, "Contents"): zlib-compressed JSON with the keys ``index`` (null, or
the name and the text of the index) and ``files`` (the name and the header of each file). The tensors are stored under
their own names, so a header says where their bytes go.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dcformat.errors import MemoryLimitError
from dcformat.model import Extension
from dcformat_interop.packing.indexes import check_name
from dcformat_interop.packing.shards import Shards
from dcformat_interop.refusals import UnfitError
from dcformat_interop.safetensors import DTYPES, Layout, read_layout
from dcformat_interop.tensors import JSON_BYTES, Budget

#: The kind of the section; its id is 128 more.
ORIGIN_KIND = 0x73

#: Maximum number of bytes of the section when it is decompressed.
_MAX_BYTES = 1 << 28

#: Bytes of memory for each byte of the section: its text is parsed, and then the headers in it are.
_FACTOR = 2 * JSON_BYTES


@dataclass(frozen=True, slots=True)
class SafetensorsOrigin:
    """The safetensors files of which a checkpoint consisted.

    Attributes
    ----------
    files : list of (str, Layout)
        Name and layout of each.
    index : tuple of (str, bytes) or None
        Name and content of the index.
    """

    files: list[tuple[str, Layout]]
    index: tuple[str, bytes] | None

    @property
    def names(self) -> list[str]:
        """The names of all files."""
        return [name for name, _ in self.files] + ([] if self.index is None else [self.index[0]])


def origin_section(shards: Shards) -> Extension:
    """Return the section for a checkpoint."""
    index = None if shards.index is None else [shards.index[0], shards.index[1].text.decode()]
    files = [[shard.name, shard.layout.header.decode()] for shard in shards.shards]
    text = json.dumps({"index": index, "files": files}, separators=(",", ":"), ensure_ascii=False)
    return Extension(ORIGIN_KIND, zlib.compress(text.encode(), 9))


def read_origin(path: str, extensions: Sequence[Extension], max_memory: int | None) -> SafetensorsOrigin | None:
    """Return the files of which a checkpoint consisted, or None if it does not name them.

    Parameters
    ----------
    path : str
        The ``.dcf`` file, for errors.
    extensions : sequence of Extension
    max_memory : int or None
        Maximum number of bytes that the description may take; None for no limit.

    Raises
    ------
    MemoryLimitError
        The description takes more memory than allowed.
    UnfitError
        The section is damaged, or a name leaves the directory.
    """
    for extension in extensions:
        if extension.kind == ORIGIN_KIND:
            return _parsed(path, extension.payload, max_memory)
    return None


def _inflated(path: str, packed: bytes, max_memory: int | None) -> bytes:
    """Decompress the section; raise unless the memory allows to parse it."""
    max_bytes = _MAX_BYTES if max_memory is None else min(max_memory // _FACTOR, _MAX_BYTES)
    try:
        inflater = zlib.decompressobj()
        text = inflater.decompress(packed, max_bytes + 1)
    except zlib.error as error:
        raise _damaged(path, error) from None
    if len(text) > max_bytes:
        allowed = "" if max_memory is None else f" ({max_memory:,} of max_memory, {_FACTOR} for each)"
        expected = f"at most {max_bytes:,}{allowed}"
        refusal = MemoryLimitError("description of safetensors files", got="more bytes", expected=expected)
        refusal.path = path
        raise refusal
    if not inflater.eof or inflater.unused_data:
        raise _damaged(path, "it is cut short or too long")
    return text


def _damaged(path: str, reason: object) -> UnfitError:
    return UnfitError(path, "a description of safetensors files", f"a damaged one ({reason})")


def _parsed(path: str, packed: bytes, max_memory: int | None) -> SafetensorsOrigin:
    text = _inflated(path, packed, max_memory)
    try:
        content: Any = json.loads(text.decode())
        index = None if content["index"] is None else (str(content["index"][0]), str(content["index"][1]).encode())
        headers = [(str(name), str(header).encode()) for name, header in content["files"]]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise _damaged(path, error) from None
    names = [name for name, _ in headers] + ([index[0]] if index is not None else [])
    for name in names:
        check_name(path, name)
    if len(set(names)) < len(names):
        raise UnfitError(path, "files with different names", ", ".join(names))
    files = []
    for name, header in headers:
        file = io.BytesIO(len(header).to_bytes(8, "little") + header)
        inside = f"{path}: {name}"
        files.append((name, read_layout(inside, file, Budget(inside, None), header_only=True)))
    return SafetensorsOrigin(files, index)


def check_tensors(path: str, origin: SafetensorsOrigin, infos: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    """Raise `UnfitError` unless the tensors, given by dtype and shape, are those of the files."""
    expected = {}
    for _, layout in origin.files:
        for entry in layout.entries:
            if entry.code not in DTYPES:
                raise UnfitError(path, "dtypes that a .dcf file holds", entry.code, entry.name)
            expected[entry.name] = (DTYPES[entry.code], tuple(entry.shape))
    if sum(len(layout.entries) for _, layout in origin.files) != len(expected) or expected.keys() != infos.keys():
        raise UnfitError(path, "the tensors of the safetensors files that it was made from", "others")
    for name, found in infos.items():
        if found != expected[name]:
            raise UnfitError(path, f"{expected[name][0]} of shape {expected[name][1]}", f"{found[0]} {found[1]}", name)
