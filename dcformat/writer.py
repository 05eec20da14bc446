"""Writing of files (spec, "File"). The same model and mode give the same bytes everywhere."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO

from dcformat.assembly import CodedTensor, write_file
from dcformat.codecs import MODES, Mode, RelativeIndex
from dcformat.codecs.payload_writer import write_payload
from dcformat.contents_writer import EntryHead, check_limits, small_sections
from dcformat.digest import tensor_digest
from dcformat.files import replacing
from dcformat.forms import smallest
from dcformat.model import Model, Tensor
from dcformat.modes import AnyMode, modes_to_try, smallest_file
from dcformat.read_back import require_read_back
from dcformat.validate import check_tensor, check_weights

#: A function that returns the form in which to store a tensor, and its payload.
Encode = Callable[[Tensor], tuple[Tensor, bytes]]

#: Maximum number of bytes of payloads that wait in memory, rather than in a file, until the contents are known.
SPOOL_BYTES = 32 << 20
#: Bytes that are copied from there to the file at a time.
_PART_BYTES = 1 << 20


def save(
    model: Model,
    path: str | os.PathLike[str],
    *,
    mode: AnyMode = "fast",
    relative_index: RelativeIndex = "escape",
) -> None:
    """Write a model to a file, whole or not at all.

    The file is read back before it takes its name, to prove that it holds the model, bit for bit.

    Parameters
    ----------
    model : Model
    path : path-like
    mode : {'fast', 'small', 'tiny', 'auto'}
        The allowed coders: 'fast' allows Huffman coding, 'small' also adaptive arithmetic coding, 'tiny' also mixing.
        Each tensor is stored in the form that takes the fewest bytes in that mode, sparse or dense, with or without a
        codebook, regardless of its form in memory. Tensors with equal dtypes, shapes, scales and bits are stored once.
        'auto', the default of the command, codes a small model in all modes and keeps the smallest file that decodes
        within 0.1 s (docs/codecs.md). 'fast' is the default here, because programs may save often.
    relative_index : {'escape', 'filler'}
        What bridges long runs of zeros: an escape, which has no code, or a filler, which has one, as in Deep
        Compression (Han, Mao, Dally 2015, section 2). 'filler' implies Huffman coding.

    Raises
    ------
    FormatError
        The model contradicts itself or is beyond the format's limits.
    ReadBackError
        The file does not hold the model when read back; an existing file stays unchanged.
    OSError
        The file cannot be written; an existing file stays unchanged.
    """
    with replacing(Path(path)) as file:
        if not file.readable():  # a pipe or a device
            file.write(dumps(model, mode=mode, relative_index=relative_index))
            return
        write(model, file, mode=mode, relative_index=relative_index)
        file.seek(0)
        require_read_back(model, file, str(path))


def dumps(model: Model, *, mode: AnyMode = "fast", relative_index: RelativeIndex = "escape") -> bytes:
    """Return the bytes of a model's file, after reading them back. Parameters and errors are those of `save`."""
    data = written_bytes(model, mode, relative_index)
    require_read_back(model, data, "file")
    return data


def written_bytes(model: Model, mode: AnyMode = "fast", relative_index: RelativeIndex = "escape") -> bytes:
    """Return the bytes of a model's file without reading them back, to know a size or to try them.

    Parameters are those of `save`.
    """
    from io import BytesIO

    out = BytesIO()
    write(model, out, mode=mode, relative_index=relative_index)
    return out.getvalue()


def write(
    model: Model,
    file: BinaryIO,
    *,
    mode: AnyMode = "fast",
    relative_index: RelativeIndex = "escape",
    encode: Encode | None = None,
) -> None:
    """Write a model's file to a binary stream, front to back, without reading it back.

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
    modes = modes_to_try(mode, model.elements)
    if relative_index == "escape" and encode is None and len(modes) > 1:
        file.write(smallest_file(lambda each: written_bytes(model, each, relative_index), modes).data)
        return
    mode = modes[0]
    if mode not in MODES:
        raise ValueError(f"mode: expected one of auto, {', '.join(MODES)}, found {mode!r}")
    if relative_index not in ("escape", "filler"):
        raise ValueError(f"relative_index: expected 'escape' or 'filler', found {relative_index!r}")
    check_limits(model)
    if model.graph is not None:
        model.graph.shapes({name: tensor.shape for name, tensor in model.tensors.items()})
        check_weights(model)
    encode = encode or _encoder(mode, relative_index)
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
        write_file(code_tensors(model.tensors.items(), spool, encode), small_sections(model), mode, file)


def _encoder(mode: Mode, relative_index: RelativeIndex) -> Encode:
    if relative_index == "filler":
        return lambda tensor: (tensor, write_payload(tensor, mode, relative_index))
    return lambda tensor: smallest(tensor, mode)


def code_tensors(tensors: Iterable[tuple[str, Tensor]], spool: IO[bytes], encode: Encode) -> list[CodedTensor]:
    """Code all tensors but those that equal an earlier one, and keep their payloads in `spool`."""
    coded: list[CodedTensor] = []
    seen: set[bytes] = set()
    for name, tensor in tensors:
        check_tensor(name, tensor)
        digest = tensor_digest(tensor)
        if digest in seen:
            coded.append(CodedTensor(name, digest, b"", 0, tuple))
            continue
        seen.add(digest)
        stored, payload = encode(tensor)
        place = partial(_parts, spool, spool.tell(), len(payload))
        spool.write(payload)
        coded.append(CodedTensor(name, digest, bytes(EntryHead.of(stored)), len(payload), place))
    return coded


def _parts(spool: IO[bytes], start: int, size: int) -> Iterator[bytes]:
    """Yield a payload from the spool, part by part."""
    spool.seek(start)
    for done in range(0, size, _PART_BYTES):
        yield spool.read(min(_PART_BYTES, size - done))
