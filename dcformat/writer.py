"""From a model to a file's bytes (spec, "File"). The same model and mode give the same bytes everywhere."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from pathlib import Path
from typing import BinaryIO

from dcformat import layout
from dcformat.codecs.choose import MODES, Mode, RelativeIndex, write_payload
from dcformat.contents import assemble, check_limits, copy_entry, small_sections, table_entry
from dcformat.digest import ContentDigest, crc32c, tensor_digest
from dcformat.errors import LimitError
from dcformat.files import replacing
from dcformat.forms import smallest
from dcformat.model import Model
from dcformat.validate import check_tensor
from dcformat.wiring import check_graph

#: Payloads wait for the contents, which come before them: up to this much in memory, the rest in a temporary file.
_SPOOL_BYTES = 32 << 20


def save(
    model: Model,
    path: str | os.PathLike[str],
    *,
    mode: Mode = "fast",
    relative_index: RelativeIndex = "escape",
) -> None:
    """Write a model to a file, whole or not at all: beside its place, then renamed into it.

    Parameters
    ----------
    model : Model
    path : path-like
    mode : {'fast', 'small', 'tiny'}
        Which coders may be used: Huffman; adaptive arithmetic coding too; mixing too. Within a mode each tensor is
        stored in the form that takes the fewest bytes, whatever form it has in memory: sparse or dense, with or
        without a codebook. A tensor that equals an earlier one in dtype, shape, scale and every bit is stored once.
    relative_index : {'escape', 'filler'}
        How long runs of zeros are bridged: by an escape that carries no label, or, as in Deep Compression (Han,
        Mao, Dally 2015, section 2), by a filler that does. 'filler' implies Huffman coding.

    Raises
    ------
    FormatError
        The model contradicts itself or is beyond the format's limits.
    OSError
        The file cannot be written; what was there before still is.
    """
    with replacing(Path(path)) as file:
        write(model, file, mode=mode, relative_index=relative_index)


def dumps(model: Model, *, mode: Mode = "fast", relative_index: RelativeIndex = "escape") -> bytes:
    """Return the bytes of a model's file; parameters and errors as in `save`."""
    from io import BytesIO

    out = BytesIO()
    write(model, out, mode=mode, relative_index=relative_index)
    return out.getvalue()


def write(model: Model, file: BinaryIO, *, mode: Mode = "fast", relative_index: RelativeIndex = "escape") -> None:
    """Write a model's file to a binary stream, front to back; parameters and errors as in `save`."""
    if mode not in MODES:
        raise ValueError(f"mode: expected one of {', '.join(MODES)}, found {mode!r}")
    if relative_index not in ("escape", "filler"):
        raise ValueError(f"relative_index: expected 'escape' or 'filler', found {relative_index!r}")
    check_limits(model)
    if model.graph is not None:
        check_graph(model.graph)
        model.graph.shapes({name: tensor.shape for name, tensor in model.tensors.items()})
    sections = small_sections(model)
    digest = ContentDigest(sections)
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
        table, block = [], bytearray()
        fresh = True
        originals: dict[bytes, int] = {}
        for name, tensor in model.tensors.items():
            check_tensor(name, tensor)
            content = tensor_digest(tensor)
            digest.add(name, content)
            if content in originals:
                table.append(copy_entry(name, len(originals) - originals[content]))
                continue
            originals[content] = len(originals)
            if relative_index == "filler":
                stored, payload = tensor, write_payload(tensor, mode, relative_index)
            else:
                stored, payload = smallest(tensor, mode)
            if block and len(block) + len(payload) > layout.MAX_SHARED_BLOCK_BYTES:
                spool.write(block + crc32c(block))
                block, fresh = bytearray(), True
            table.append(table_entry(stored, len(payload), fresh))
            block += payload
            fresh = False
        if table:
            spool.write(block + crc32c(block))
        front = _front(assemble(table, sections), mode)
        file.write(front + crc32c(front))
        spool.seek(0)
        shutil.copyfileobj(spool, file, 1 << 20)
    file.write(digest.take())


def _front(contents: bytes, mode: Mode) -> bytes:
    """Return prefix and contents, packed where that is shorter, but not for `fast`: unpacking takes time."""
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
