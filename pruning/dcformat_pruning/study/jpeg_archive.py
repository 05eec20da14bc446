"""CIFAR-10 (JPEG): images from an archive of JPEG files, decoded once and kept in the user's cache.

The archive holds ``train/CLASS/NAME.jpg`` and ``test/CLASS/NAME.jpg``; the classes in alphabetical order are the
labels. It is read in one pass and never unpacked to a disk. The files are lossy copies of CIFAR-10 (Krizhevsky 2009),
so accuracies on them say nothing about the original images.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import numpy.typing as npt
import torch

from dcformat.datasets import DataError
from dcformat.files import replacing
from dcformat_pruning.data import VALIDATION_IMAGES, Images, TrainingData, split_order

#: Height and width of an image.
SIZE = 32

#: Maximum number of bytes of a JPEG file and of images of an archive; ten times those of CIFAR-10 (JPEG).
_MAX_BYTES, _MAX_IMAGES = 1 << 16, 600_000

_FILES = ("train-images", "train-labels", "test-images", "test-labels")

Arrays = dict[str, npt.NDArray[np.uint8]]


def jpeg_training_data(path: Path | str | None = None) -> TrainingData:
    """Load the train part of an archive, split as all data sets are; see `load_jpegs` for parameters and errors."""
    arrays = load_jpegs(path)
    order = split_order(len(arrays["train-labels"]))
    held_out = min(VALIDATION_IMAGES, len(order) // 5)
    return TrainingData(
        train=_images(arrays, "train", order[held_out:]), validation=_images(arrays, "train", order[:held_out])
    )


def jpeg_test_images(path: Path | str | None = None) -> Images:
    """Load the test part of an archive; see `load_jpegs` for parameters and errors."""
    arrays = load_jpegs(path)
    return _images(arrays, "test", np.arange(len(arrays["test-labels"])))


def load_jpegs(path: Path | str | None = None) -> Arrays:
    """Decode an archive, or load its images if it was decoded before.

    Parameters
    ----------
    path : path, optional
        The archive, or a directory that holds ``cifar10_jpeg.tar.xz``. By default, ``cifar10_jpeg`` in the user's data
        directory of dcformat.

    Returns
    -------
    dict of str to array
        ``train-images`` and ``test-images``, uint8 ``(n, 3, 32, 32)``, and ``train-labels`` and ``test-labels``, uint8
        ``(n,)``.

    Raises
    ------
    DataError
        There is no archive, it cannot be read, or a file in it is not a 32 x 32 JPEG image of a class.
    ImportError
        Pillow is not installed: ``pip install 'dcformat[study]'``.
    """
    from platformdirs import user_cache_path

    archive = _place(path)
    try:
        with archive.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        found = f"expected an archive of JPEG files, found: {error.strerror}"
        raise DataError(f"{archive}: {found}; give the path of cifar10_jpeg.tar.xz (docs/study-networks.md)") from error
    folder = user_cache_path("dcformat", appauthor=False) / f"cifar10-jpeg-{digest[:16]}"
    files = {name: folder / f"{name}.npy" for name in _FILES}
    with suppress(OSError, ValueError, EOFError):  # missing or damaged: decode again
        return {name: np.load(file, allow_pickle=False) for name, file in files.items()}
    arrays = decode(archive)
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in files.items():
        with replacing(file) as out:
            np.save(out, arrays[name], allow_pickle=False)
    return arrays


def is_archive(path: Path | str | None) -> bool:
    """Return whether `path` means an archive, and not a directory of other files; see `load_jpegs`."""
    return path is None or not Path(path).is_dir() or _place(path).exists()


def _place(path: Path | str | None) -> Path:
    from platformdirs import user_data_path

    place = Path(path) if path is not None else user_data_path("dcformat", appauthor=False) / "cifar10_jpeg"
    return place if path is not None and not place.is_dir() else place / "cifar10_jpeg.tar.xz"


def decode(archive: Path) -> Arrays:
    """Decode all images of an archive; see `load_jpegs` for results and errors."""
    from PIL import Image

    pixels: dict[str, list[npt.NDArray[np.uint8]]] = {"train": [], "test": []}
    classes: dict[str, list[str]] = {"train": [], "test": []}
    for name, content in _members(archive):
        part, label = PurePosixPath(name).parts[-3:-1]
        try:
            with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
                size = image.size
                decoded = np.asarray(image.convert("RGB")) if size == (SIZE, SIZE) else None
        except OSError as error:
            raise DataError(f"{archive}: {name}: expected a JPEG image, found: {error}") from error
        if decoded is None:
            raise DataError(f"{archive}: {name}: expected {SIZE} x {SIZE} pixels, found {size[0]} x {size[1]}")
        pixels[part].append(decoded.transpose(2, 0, 1))
        classes[part].append(label)
    names = sorted(set(classes["train"]))
    for part, labels in classes.items():
        if not labels:
            raise DataError(f"{archive}: expected images in {part}/CLASS/, found none")
        if unknown := sorted(set(labels) - set(names)):
            raise DataError(f"{archive}: expected the classes of train/ in {part}/, found also {unknown[0]!r}")
    if len(names) != 10:
        raise DataError(f"{archive}: expected 10 classes, found {len(names)}")
    number = {name: label for label, name in enumerate(names)}
    arrays = {f"{part}-images": np.stack(images) for part, images in pixels.items()}
    return arrays | {
        f"{part}-labels": np.array([number[name] for name in labels], np.uint8) for part, labels in classes.items()
    }


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each ``train|test/CLASS/NAME.jpg``, in the order of their names."""
    found: dict[str, bytes] = {}
    try:
        with lzma.open(archive) as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for member in tar:
                parts = PurePosixPath(member.name).parts
                if not member.isfile() or len(parts) < 3 or parts[-3] not in ("train", "test"):
                    continue
                if member.size > _MAX_BYTES or len(found) == _MAX_IMAGES:
                    expected = f"at most {_MAX_IMAGES:,} files of at most {_MAX_BYTES:,} bytes"
                    raise DataError(f"{archive}: {member.name}: expected {expected}, found more")
                found[member.name] = _content(tar.extractfile(member))
            file.read(_MAX_BYTES)  # a truncated file fails here, where the archive itself may already have ended
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise DataError(f"{archive}: expected a readable archive, found: {error}") from error
    yield from sorted(found.items())


def _content(file: IO[bytes] | None) -> bytes:
    return b"" if file is None else file.read()


def _images(arrays: Arrays, part: str, index: npt.NDArray[np.int64]) -> Images:
    pixels, labels = arrays[f"{part}-images"][index], arrays[f"{part}-labels"][index]
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64)))
