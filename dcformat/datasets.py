"""Image data sets in IDX form (MNIST and its kin), raw or gzip-compressed.

The only code here that knows a data set; it sits in the base package because the command line and the training code
both need it and neither may import the other's.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

#: SHA-256 of the original MNIST files, decompressed: an altered copy of MNIST is not MNIST.
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

#: No IDX image set in use is larger decompressed; a gzip bomb is refused before it fills memory.
MAX_FILE_BYTES = 1 << 30

_PARTS = {"train": "train", "test": "t10k"}


class DataError(ValueError):
    """A data directory or file that cannot be used; the message names it and says what was expected."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Images uint8 ``(n, height, width)`` and labels uint8 ``(n,)`` (not one-hot)."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]

    @property
    def classes(self) -> int:
        """Number of classes: the largest label plus one."""
        return int(self.labels.max()) + 1


def load_split(part: str, data: Path | str | None = None) -> Split:
    """Read one part of a data set in IDX form.

    Parameters
    ----------
    part : {'train', 'test'}
    data : path, optional
        A directory with ``train-images-idx3-ubyte`` and its kin (``.gz`` or not; also torchvision's ``MNIST/raw``
        below it, and EMNIST's ``emnist-digits-train-...`` names). Default: ``$DCFORMAT_DATA``, else the checkout's
        ``data/mnist``.

    Raises
    ------
    DataError
        Nothing found, or a file that is not what its name says.
    """
    prefix = _PARTS[part]
    directory = find_directory(data)
    images_path = _find(directory, prefix, "images-idx3-ubyte")
    labels_path = _find(directory, prefix, "labels-idx1-ubyte")
    images = _read_idx(images_path, rank=3)
    labels = _read_idx(labels_path, rank=1)
    if not len(images) or len(images) != len(labels):
        raise DataError(f"{labels_path}: expected a label for each of {len(images)} images, found {len(labels)}")
    _check_mnist(images_path, images)
    _check_mnist(labels_path, labels)
    return Split(images, labels)


def find_directory(data: Path | str | None = None) -> Path:
    """Return the directory that holds the IDX files; see `load_split` for where it looks."""
    if data is not None:
        source, root = "--data", Path(data)
    elif os.environ.get("DCFORMAT_DATA"):
        source, root = "$DCFORMAT_DATA", Path(os.environ["DCFORMAT_DATA"])
    else:
        source, root = "the checkout", Path(__file__).resolve().parent.parent / "data" / "mnist"
    if not root.is_dir():
        raise DataError(
            f"{root}: expected a directory with IDX files (from {source}), found {'a file' if root.exists() else 'nothing'}; "
            "give --data DIR or set DCFORMAT_DATA to a directory with train-images-idx3-ubyte(.gz) and its kin"
        )
    for candidate in (root, root / "raw", root / "MNIST" / "raw"):
        if any(_candidates(candidate, "t10k", "images-idx3-ubyte")):
            return candidate
    raise DataError(
        f"{root}: expected t10k-images-idx3-ubyte(.gz) and its kin (from {source}), found none; "
        "the four MNIST files come with the source checkout in data/mnist"
    )


def _candidates(directory: Path, prefix: str, kind: str) -> Iterator[Path]:
    names = [f"{prefix}-{kind}", f"{prefix}-{kind.replace('-idx', '.idx')}"]
    if prefix == "t10k":
        names.append(f"*test-{kind}")
    else:
        names.append(f"*{prefix}-{kind}")
    for name in names:
        for suffix in ("", ".gz"):
            yield from sorted(directory.glob(name + suffix))


def _find(directory: Path, prefix: str, kind: str) -> Path:
    for path in _candidates(directory, prefix, kind):
        return path
    raise DataError(f"{directory}: expected {prefix}-{kind}(.gz), found no such file")


def _read_idx(path: Path, rank: int) -> npt.NDArray[np.uint8]:
    try:
        raw = _read_all(path)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: expected a readable {'gzip ' if path.suffix == '.gz' else ''}file: {error}") from error
    header = 4 + 4 * rank
    magic = bytes((0, 0, 8, rank))
    if raw[:4] != magic:
        raise DataError(f"{path}: expected IDX magic {magic.hex()} (uint8, rank {rank}), found {raw[:4].hex() or 'an empty file'}")
    if len(raw) < header:
        raise DataError(f"{path}: expected a header of {header} bytes, found {len(raw)}")
    shape = struct.unpack(f">{rank}I", raw[4:header])
    expected = header + int(np.prod(shape, dtype=object))
    if len(raw) != expected:
        raise DataError(f"{path}: expected {expected} bytes for shape {shape}, found {len(raw)}")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def _read_all(path: Path) -> bytes:
    with path.open("rb") as file:
        stream = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
        raw = stream.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise DataError(f"{path}: expected at most {MAX_FILE_BYTES} bytes decompressed, found more")
    return raw


def _check_mnist(path: Path, array: npt.NDArray[np.uint8]) -> None:
    """Files that call themselves MNIST (a directory of that name) must be the originals."""
    name = path.name.removesuffix(".gz").replace(".idx", "-idx")
    if name not in MNIST_SHA256 or not any(part.lower() == "mnist" for part in path.resolve().parts[-4:-1]):
        return
    digest = hashlib.sha256(_idx_header(array)).copy()
    digest.update(np.ascontiguousarray(array))
    if digest.hexdigest() != MNIST_SHA256[name]:
        raise DataError(f"{path}: expected MNIST's SHA-256 {MNIST_SHA256[name]}, found {digest.hexdigest()}")


def _idx_header(array: npt.NDArray[np.uint8]) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
