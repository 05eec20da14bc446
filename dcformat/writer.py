"""Writing of files (spec, "File"). The same model and mode give the same bytes everywhere."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, BinaryIO

from dcformat import layout
from dcformat.codecs import MODES, Mode, RelativeIndex
from dcformat.codecs.payload_writer import write_payload
from dcformat.contents import assemble, check_limits, copy_entry, small_sections, table_entry
from dcformat.digest import ContentDigest, crc32c, tensor_digest
from dcformat.errors import LimitError
from dcformat.files import replacing
from dcformat.forms import smallest
from dcformat.model import Model, Tensor
from dcformat.validate import check_tensor, check_weights

#: A function that returns the form in which to store a tensor, and its payload.
Encode = Callable[[Tensor], tuple[Tensor, bytes]]

#: Maximum number of bytes of payloads that wait in memory, rather than in a file, until the contents are known.
_SPOOL_BYTES = 32 << 20


def save(
    model: Model,
    path: str | os.PathLike[str],
    *,
    mode: Mode = "fast",
    relative_index: RelativeIndex = "escape",
) -> None:
    """Write a model to a file, whole or not at all.

    Parameters
    ----------
    model : Model
    path : path-like
    mode : {'fast', 'small', 'tiny'}
        The allowed coders: 'fast' allows Huffman coding, 'small' also adaptive arithmetic coding, 'tiny' also mixing.
        Each tensor is stored in the form that takes the fewest bytes in that mode, sparse or dense, with or without a
        codebook, regardless of its form in memory. Tensors with equal dtypes, shapes, scales and bits are stored once.
    relative_index : {'escape', 'filler'}
        What bridges long runs of zeros: an escape, which has no code, or a filler, which has one, as in Deep
        Compression (Han, Mao, Dally 2015, section 2). 'filler' implies Huffman coding.

    Raises
    ------
    FormatError
        The model contradicts itself or is beyond the format's limits.
    OSError
        The file cannot be written; an existing file stays unchanged.
    """
    with replacing(Path(path)) as file:
        write(model, file, mode=mode, relative_index=relative_index)


def dumps(model: Model, *, mode: Mode = "fast", relative_index: RelativeIndex = "escape") -> bytes:
    """Return the bytes of a model's file. Parameters and errors are those of `save`."""
    from io import BytesIO

    out = BytesIO()
    write(model, out, mode=mode, relative_index=relative_index)
    return out.getvalue()


def write(
    model: Model,
    file: BinaryIO,
    *,
    mode: Mode = "fast",
    relative_index: RelativeIndex = "escape",
    encode: Encode | None = None,
) -> None:
    """Write a model's file to a binary stream, front to back.

    Parameters
    ----------
    model, mode, relative_index
        As in `save`.
    file : binary file object
    encode : callable, optional
        Takes a tensor and returns the form to store and its payload, instead of the smallest ones: for tests and
        research. `payload_writer.encode_payload` makes the payload for a given coding.

    Raises
    ------
    FormatError
        The model contradicts itself or is beyond the format's limits.
    """
    if mode not in MODES:
        raise ValueError(f"mode: expected one of {', '.join(MODES)}, found {mode!r}")
    if relative_index not in ("escape", "filler"):
        raise ValueError(f"relative_index: expected 'escape' or 'filler', found {relative_index!r}")
    check_limits(model)
    if model.graph is not None:
        model.graph.shapes({name: tensor.shape for name, tensor in model.tensors.items()})
        check_weights(model)
    sections = small_sections(model)
    digest = ContentDigest(sections)
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
        table = _write_tensors(model, spool, digest, encode or _encoder(mode, relative_index))
        front = _front(assemble(table, sections), mode)
        file.write(front + crc32c(front))
        spool.seek(0)
        shutil.copyfileobj(spool, file, 1 << 20)
    file.write(digest.take())


def _encoder(mode: Mode, relative_index: RelativeIndex) -> Encode:
    if relative_index == "filler":
        return lambda tensor: (tensor, write_payload(tensor, mode, relative_index))
    return lambda tensor: smallest(tensor, mode)


def _write_tensors(model: Model, file: IO[bytes], digest: ContentDigest, encode: Encode) -> list[bytes]:
    """Write the data blocks, add each tensor to the digest, and return the entries of the tensor table."""
    table, block, is_new = [], bytearray(), True
    originals: dict[bytes, int] = {}
    for name, tensor in model.tensors.items():
        check_tensor(name, tensor)
        content = tensor_digest(tensor)
        digest.add(name, content)
        if content in originals:
            table.append(copy_entry(name, len(originals) - originals[content]))
            continue
        originals[content] = len(originals)
        stored, payload = encode(tensor)
        if block and len(block) + len(payload) > layout.MAX_SHARED_BLOCK_BYTES:
            file.write(block + crc32c(block))
            block, is_new = bytearray(), True
        table.append(table_entry(stored, len(payload), is_new))
        block += payload
        is_new = False
    if table:
        file.write(block + crc32c(block))
    return table


def _front(contents: bytes, mode: Mode) -> bytes:
    """Return prefix and contents, packed if that is shorter, but never in `fast`, because unpacking takes time."""
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
