"""Recognition of a file's kind by its content, not by its name."""

from __future__ import annotations

import re
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO, Literal

from dcformat_interop.npy import NPY_MAGIC
from dcformat_interop.refusals import UnfitError, WrongKindError

Kind = Literal["safetensors", "npz", "torch", "old torch"]

#: Core ML's files begin like ONNX's, but their second field is a message, with a tag, and ONNX's a name.
_COREML = re.compile(rb"..\x12[\x80-\xff]*[\0-\x7f]\n", re.DOTALL)

#: Number of bytes of a file that are inspected.
HEAD = 512

_INSTEAD = "safetensors, NumPy's .npz, or a state_dict that torch.save wrote"

_AS_FILE = ": give it as a file to dcformat pack"

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")

#: The pickled number that began torch.save's files before PyTorch 1.6.
_OLD_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

_CHECKPOINTS = {
    "safetensors": "safetensors: use dcformat pack",
    "npz": "a zip archive, as .npz and PyTorch files are: use dcformat pack",
    "old torch": "an old PyTorch file: use dcformat pack",
}

#: The kinds of file that begin with characteristic bytes.
_STARTS = {
    b"\x89DCF": "a .dcf file: use dcformat repack",
    b"GGUF": "GGUF",
    b"\x89HDF\r\n\x1a\n": "HDF5, as Keras writes it",
    NPY_MAGIC: "a single array (.npy)",
    b"\x1f\x8b": "gzip: decompress it first",
    b"BZh": "bzip2: decompress it first",
    b"\xfd7zXZ\0": "xz: decompress it first",
    b"\x28\xb5\x2f\xfd": "zstd: decompress it first",
    b"version https://git-lfs": "a Git LFS pointer: run git lfs pull",
    b"MATLAB 5.0": "a MATLAB file",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"GIF8": "a GIF image",
    b"%PDF": "a PDF document",
    b"\x7fELF": "a program or library",
}

#: Kinds of text, by the characters after any spaces and byte order mark.
_TEXT_STARTS = {b"<": "an HTML or XML page", b"{": "JSON"}

#: Bytes that may come before a text.
_BEFORE_TEXT = b"\xef\xbb\xbf \t\r\n"

#: The kinds that are networks, as `looks_like` names them.
NETWORKS = ("ONNX", "TFLite")

#: Members of the archives that `torch.export.save` writes, and that it wrote before PyTorch 2.8.
_PROGRAM = ("archive_format", "serialized_exported_program.json")

#: Members that identify zip archives of other kinds, by the end of their names.
_MEMBERS = {
    "constants.pkl": "a TorchScript archive: save the module's state_dict()",
    "model.weights.h5": "a Keras archive",
    **dict.fromkeys(_PROGRAM, f"a torch.export program{_AS_FILE}"),
}

#: Names in directories that are checkpoints or networks of other programs, with the kinds of these.
_IN_DIRECTORIES = {
    "saved_model.pb": "a TensorFlow SavedModel: convert it to TensorFlow Lite or ONNX",
    "Manifest.json": "a Core ML package: give the model that it was made from",
    ".metadata": "a distributed checkpoint of PyTorch: make one file of it with "
    "torch.distributed.checkpoint.format_utils.dcp_to_torch_save",
    "manifest.ocdbt": "an Orbax checkpoint: save its arrays with numpy.savez",
    "_CHECKPOINT_METADATA": "an Orbax checkpoint: save its arrays with numpy.savez",
    ".zgroup": "a Zarr store: save its arrays with numpy.savez",
    "zarr.json": "a Zarr store: save its arrays with numpy.savez",
}

#: Ends of the names of files that can be packed by themselves.
_FILES = (".bin", ".pt", ".pth", ".ckpt", ".npz", ".onnx", ".tflite", ".pt2", ".dcf")


def kind_of(path: str, head: bytes, file: BinaryIO | None = None) -> Kind | None:
    """Return the kind of a checkpoint, or None if the bytes have no known mark.

    Parameters
    ----------
    path : str
        The file, for errors.
    head : bytes
        Its first `HEAD` bytes, or all of it.
    file : binary file object, optional
        The file, to tell kinds of zip archives apart; without it, every archive counts as an .npz.

    Raises
    ------
    WrongKindError
        The file is of another known kind, which the message names.
    """
    kind = _checkpoint_kind(head)
    if kind == "npz" and file is not None:
        return _of_zip(path, file)
    if kind is None:
        found = _other(head)
        if found is not None:
            raise not_checkpoint(path, f"looks like {found}{_AS_FILE if found in NETWORKS else ''}")
    return kind


def not_checkpoint(path: str, found: str) -> WrongKindError:
    """Return the error for a file that is not a checkpoint, but the kind that `found` names."""
    return WrongKindError(path, "a checkpoint", found, _INSTEAD)


def looks_like(head: bytes) -> str | None:
    """Return the apparent kind of a file that begins with `head`, and advice on it; None if the kind is unknown."""
    kind = _checkpoint_kind(head)
    return _other(head) if kind is None else _CHECKPOINTS[kind]


def is_program(path: Path) -> bool:
    """Return whether a file is an archive of `torch.export.save`. Raises `OSError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.rpartition("/")[2] in _PROGRAM for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def directory_holds(path: Path) -> str:
    """Describe a directory without safetensors files: its apparent kind, or the names of some files."""
    names = sorted(each.name for each in path.iterdir())
    for marker, kind in _IN_DIRECTORIES.items():
        if marker in names:
            return kind
    files = [name for name in names if name.lower().endswith(_FILES)]
    if files:
        return f"{_listed(files)}: give the file"
    return f"only {_listed(names)}" if names else "an empty one"


def _listed(names: list[str]) -> str:
    return f"{names[0]} and {len(names) - 1:,} more" if len(names) > 1 else names[0]


def looks_like_checkpoint(path: Path) -> bool:
    """Return whether a file has the marks of a checkpoint of any kind. Raises `OSError`."""
    try:
        with path.open("rb") as file:
            return kind_of(str(path), file.read(HEAD), file) is not None
    except UnfitError:
        return False


def _checkpoint_kind(head: bytes) -> Kind | None:
    if head.startswith(_ZIP):
        return "npz"
    if _OLD_TORCH in head[:32] and head[:1] == b"\x80":
        return "old torch"
    return "safetensors" if is_safetensors(head) else None


def is_safetensors(head: bytes) -> bool:
    """Return whether a file that begins with `head` is a safetensors file."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32


def _other(head: bytes) -> str | None:
    text = head.lstrip(_BEFORE_TEXT)
    for begin, starts in ((head, _STARTS), (text, _TEXT_STARTS)):
        for start, name in starts.items():
            if begin.startswith(start):
                return name
    if head[4:8] == b"TFL3":
        return "TFLite"
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    if len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return "a Python pickle, which could run code: save a state_dict with torch.save or as safetensors"
    # ONNX has no magic number. It is a protobuf message with a small version number first, and then a known field.
    if len(head) > 2 and head[0] == 8 and 1 <= head[1] < 32 and head[2] in b"\x12\x1a\x22\x28\x32\x3a\x42":
        return "Core ML: give the model that it was made from" if _COREML.match(head) else "ONNX"
    return None


def _of_zip(path: str, file: BinaryIO) -> Kind:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except Exception as error:  # zipfile raises many classes of errors.
        raise not_checkpoint(path, f"a damaged zip archive: {zip_damage(file, error)}") from None
    for end, name in _MEMBERS.items():
        if any(member.rpartition("/")[2] == end for member in names):
            raise not_checkpoint(path, f"looks like {name}")
    if any(member.rpartition("/")[2] == "data.pkl" for member in names):
        return "torch"
    return "npz"


def zip_damage(file: IO[bytes], error: Exception) -> str:
    """Return the fault of a zip archive in which `zipfile` met an error."""
    file.seek(0)
    with suppress(zipfile.BadZipFile):  # It has an end, but a damaged one.
        if file.read(len(_ZIP[0])).startswith(_ZIP) and not zipfile.is_zipfile(file):
            return "its end is missing, so the file is truncated"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
