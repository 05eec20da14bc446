"""Restores the safetensors files from which a checkpoint was packed, byte for byte, tensor by tensor."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from dcformat.files import replacing
from dcformat_interop.packing.origin import SafetensorsOrigin
from dcformat_interop.packing.packed_files import PackedFiles
from dcformat_interop.safetensors import Layout


def restore(content: PackedFiles, origin: SafetensorsOrigin, directory: Path) -> list[Path]:
    """Write the safetensors files and their index into a directory; each gets its name when it is complete.

    Parameters
    ----------
    content : PackedFiles
    origin : SafetensorsOrigin
        That of `content`.
    directory : Path
        An existing directory.

    Returns
    -------
    list of Path
        The files and, last, the index if there was one.

    Raises
    ------
    FormatError
        A packed file is damaged.
    OSError
        A file cannot be written.
    """
    written = []
    for name, layout in origin.files:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            _write(content, layout, file)
        written.append(path)
    if origin.index is not None:
        name, text = origin.index
        with replacing(directory / name) as file:
            file.write(text)
        written.append(directory / name)
    return written


def _write(content: PackedFiles, layout: Layout, file: BinaryIO) -> None:
    file.write(len(layout.header).to_bytes(8, "little") + layout.header)
    for entry in layout.entries:
        for piece in content.pieces(entry.name):
            file.write(piece.data)
