"""Image data sets in IDX form (MNIST and its relatives), raw or gzip-compressed.

No other module of this package knows about data sets. This one is here because the command line and the training code
both need it, and neither may import the other.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import re
import struct
import zlib
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dcformat import layout
from dcformat.limits import is_array_shape
from dcformat.records import record
from dcformat.wording import counted

#: SHA-256 of the original MNIST files, decompressed: altered copies are refused.
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

#: Bytes read at a time.
_PIECE = 1 << 20

#: The files of one data set: a path for each pair of part (train or t10k) and kind.
Files = dict[tuple[str, str], Path]

_PARTS = {"train": "train", "test": "t10k"}
_KINDS = ("images-idx3-ubyte", "labels-idx1-ubyte")

#: Number of parents of the working directory that are searched for data/mnist.
_PARENTS = 4

#: A file's name: the set's name (optional; EMNIST has it), the part and the kind, joined by - or . (mirrors differ).
_FILE_NAME = re.compile(r"(?:(.+)-)?(train|t10k|test)-(images|labels)[-.](idx[13]-ubyte)(?:\.gz)?")


class DataError(ValueError):
    """An unusable data directory or file; the message names it and says what was expected."""


@record(eq=False)
class Split:
    """Images uint8 ``(n, height, width)`` and labels uint8 ``(n,)`` (not one-hot)."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]

    @property
    def classes(self) -> int:
        """Number of classes: the largest label plus one."""
        return int(self.labels.max()) + 1


def load_split(
    part: str, data: Path | str | None = None, *, max_memory: int | None = layout.DEFAULT_MAX_MEMORY
) -> Split:
    """Read one part of a data set in IDX form.

    Parameters
    ----------
    part : {'train', 'test'}
    data : path, optional
        A directory that holds ``train-images-idx3-ubyte`` and the other three files (``.gz`` or not), or torchvision's
        ``MNIST/raw``. EMNIST's ``emnist-digits-train-...`` names work too; if a directory holds several of
        EMNIST's sets, ``DIR/emnist-digits`` selects one. By default ``$DCFORMAT_DATA``, else the first ``data/mnist``
        found in the working directory, in its four nearest parents, or in the checkout that the package runs from,
        else ``mnist`` in the user's data directory.
    max_memory : int or None
        Maximum number of bytes of a decompressed file; None for no bound.

    Raises
    ------
    DataError
        No data set was found, a file is not what its name says, or a file is an altered copy of MNIST's.

    Notes
    -----
    Images are returned unchanged: EMNIST's are transposed in the file and stay transposed. A network trained on them
    sees them the same way when it runs.
    """
    files = _find_files(data)
    arrays = {}
    for kind in _KINDS:
        path = _pick(files, _PARTS[part], kind)
        arrays[kind] = _read_idx(path, 3 if "images" in kind else 1, max_memory)
    images, labels = (arrays[kind] for kind in _KINDS)
    if not len(images):
        raise DataError(f"{_pick(files, _PARTS[part], _KINDS[0])}: expected at least one image, found none")
    if len(images) != len(labels):
        path = _pick(files, _PARTS[part], _KINDS[1])
        raise DataError(f"{path}: expected a label for each of {len(images)} images, found {len(labels)}")
    _check_mnist(files, _PARTS[part], arrays, max_memory)
    return Split(images, labels)


def find_directory(data: Path | str | None = None) -> Path:
    """Return the directory that holds the IDX files; see `load_split` for where it looks."""
    return next(iter(_find_files(data).values())).parent


def _find_files(data: Path | str | None) -> Files:
    """Return the files of one data set, raw files before compressed ones."""
    source, roots = _roots(data)
    for root in roots:
        if files := _files_at(root):
            return files
    (first, *others) = roots
    found = "a file" if first.is_file() else "none" if first.is_dir() else "nothing"
    also = f" there or in {', '.join(map(str, others))}" if others else ""
    raise DataError(
        f"{first}: expected a directory with train-images-idx3-ubyte(.gz) and the other IDX files (from {source}), "
        f"found {found}{also}; give --data DIR or set DCFORMAT_DATA (MNIST is in the source checkout's data/mnist)"
    )


def _files_at(root: Path) -> Files | None:
    """Return the files of the data set in a directory, or of the one that `root` names in its parent directory."""
    parent, chosen = (root, None) if root.is_dir() else (root.parent, root.name)
    for directory in (parent, parent / "raw", parent / "MNIST" / "raw"):
        sets = _scan(directory)
        if chosen in sets:
            return sets[chosen]
        if sets and chosen is None:
            if len(sets) == 1:
                return next(iter(sets.values()))
            names = sorted(filter(None, sets))
            raise DataError(
                f"{root}: expected one data set, found {', '.join(names)}; name one, as in {root / names[0]}"
            )
    return None


def _roots(data: Path | str | None) -> tuple[str, list[Path]]:
    """Return where the directories to search come from, and the directories in order."""
    if data is not None:
        return "--data", [Path(data)]
    if os.environ.get("DCFORMAT_DATA"):
        return "$DCFORMAT_DATA", [Path(os.environ["DCFORMAT_DATA"])]
    folders = [Path(__file__).resolve().parent.parent]
    with contextlib.suppress(FileNotFoundError):  # The working directory was removed.
        here = Path.cwd()
        folders = [here, *here.parents[:_PARENTS], *folders]
    near = [folder / "data" / "mnist" for folder in folders]
    with contextlib.suppress(ImportError):  # Installations for small machines do without platformdirs.
        from platformdirs import user_data_path

        near.append(user_data_path("dcformat", appauthor=False) / "mnist")
    return "the usual places", list(dict.fromkeys(near))


def _scan(directory: Path) -> dict[str | None, Files]:
    """Group a directory's IDX files by their data set (None if no name comes before train or t10k)."""
    sets: dict[str | None, Files] = {}
    for path in sorted(directory.glob("*-ubyte")) + sorted(directory.glob("*-ubyte.gz")):
        if match := _FILE_NAME.fullmatch(path.name):
            name, part, what, form = match.groups()
            sets.setdefault(name, {}).setdefault(("t10k" if part == "test" else part, f"{what}-{form}"), path)
    return sets


def _pick(files: Files, prefix: str, kind: str) -> Path:
    if path := files.get((prefix, kind)):
        return path
    directory = next(iter(files.values())).parent
    raise DataError(f"{directory}: expected {prefix}-{kind}(.gz), found no such file")


def _read_idx(path: Path, rank: int, max_memory: int | None) -> npt.NDArray[np.uint8]:
    try:
        with path.open("rb") as file:
            stream = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            return _read_array(path, stream, rank, max_memory)
    except (OSError, EOFError, zlib.error) as error:
        what = "gzip file" if path.suffix == ".gz" else "file"
        raise DataError(f"{path}: expected a readable {what}, found: {error}") from error
    except MemoryError:
        raise DataError(f"{path}: expected a file that fits in memory, found a larger one") from None


def _read_array(path: Path, stream: io.BufferedIOBase, rank: int, max_memory: int | None) -> npt.NDArray[np.uint8]:
    """Read a header and exactly the bytes that it declares: the file may be a decompression bomb or a device."""
    header, magic = 4 + 4 * rank, bytes((0, 0, 8, rank))
    head = stream.read(header)
    if head[:4] != magic:
        found = head[:4].hex() or "an empty file"
        raise DataError(f"{path}: expected IDX magic {magic.hex()} (uint8, rank {rank}), found {found}")
    if len(head) < header:
        raise DataError(f"{path}: expected a header of {counted(header, 'byte')}, found {len(head)}")
    shape = struct.unpack(f">{rank}I", head[4:])
    size = prod(shape)
    if max_memory is not None and size > max_memory:
        raise DataError(f"{path}: expected at most {counted(max_memory, 'byte')}, found shape {shape}")
    if not is_array_shape(shape, 1):
        raise DataError(f"{path}: expected a shape that NumPy supports, found {shape}")
    raw = bytearray()
    while piece := stream.read(min(_PIECE, size + 1 - len(raw))):
        raw += piece
    if len(raw) != size:
        found = f"{header + len(raw)}{' or more' if len(raw) > size else ''}"
        raise DataError(f"{path}: expected {counted(header + size, 'byte')} for shape {shape}, found {found}")
    return np.frombuffer(raw, np.uint8).reshape(shape)


def _check_mnist(files: Files, prefix: str, arrays: dict[str, npt.NDArray[np.uint8]], max_memory: int | None) -> None:
    """Refuse an altered MNIST: if one file is MNIST's, or the directory is named MNIST, all files must be MNIST's.

    This checks only the part that is being read and the other part's labels, which are small.
    """
    digests = {(prefix, kind): _sha256(array) for kind, array in arrays.items()}
    other = ("t10k" if prefix == "train" else "train", _KINDS[1])
    if other in files:
        digests[other] = _sha256(_read_idx(files[other], 1, max_memory))
    originals = [key for key, digest in digests.items() if digest == MNIST_SHA256["-".join(key)]]
    directory = files[prefix, _KINDS[0]].resolve().parent
    if directory.name.lower() == "raw":
        directory = directory.parent
    if not originals and directory.name.lower() != "mnist":
        return
    why = f"{files[originals[0]].name} is MNIST's" if originals else "the directory is called so"
    for key, digest in digests.items():
        expected = MNIST_SHA256["-".join(key)]
        if digest != expected:
            raise DataError(f"{files[key]}: expected MNIST's SHA-256 {expected} ({why}), found {digest}")


def _sha256(array: npt.NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape))
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
