"""Data sets in IDX form: the places searched, the files accepted, the files refused, and the errors."""

from __future__ import annotations

import gzip
import shutil
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from dcformat import datasets
from dcformat.datasets import DataError, find_directory, load_split

MNIST = Path(__file__).resolve().parents[2] / "data" / "mnist"
IMAGES = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
LABELS = np.array([3, 1, 0, 3], np.uint8)


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def put(directory: Path, images: str = "t10k-images-idx3-ubyte", labels: str = "t10k-labels-idx1-ubyte") -> Path:
    """Write the small set under the given names, compressed if they end in `.gz`, and return the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, array in ((images, IMAGES), (labels, LABELS)):
        raw = idx(array)
        (directory / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return directory


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DCFORMAT_DATA", raising=False)


def check(part: str, data: Path | str | None) -> None:
    split = load_split(part, data)
    assert split.images.tobytes() == IMAGES.tobytes()
    assert split.images.shape == IMAGES.shape
    assert split.labels.tolist() == LABELS.tolist()
    assert split.classes == 4


@pytest.mark.parametrize(
    "names",
    [
        ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
        ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte"),
        ("t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte"),
        ("test-images-idx3-ubyte", "test-labels-idx1-ubyte"),
        ("emnist-digits-test-images-idx3-ubyte.gz", "emnist-digits-test-labels-idx1-ubyte.gz"),
    ],
)
@pytest.mark.parametrize("below", ["", "raw"])
def test_names_and_folders_of_the_usual_mirrors(tmp_path: Path, names: tuple[str, str], below: str) -> None:
    put(tmp_path / "set" / below, *names)
    check("test", tmp_path / "set")
    check("test", str(tmp_path / "set"))
    assert find_directory(tmp_path / "set") == tmp_path / "set" / below


def test_the_train_part(tmp_path: Path) -> None:
    check("train", put(tmp_path, "train-images-idx3-ubyte", "train-labels-idx1-ubyte"))


def test_the_variable_and_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_directory() == MNIST
    monkeypatch.setenv("DCFORMAT_DATA", str(put(tmp_path)))
    check("test", None)
    monkeypatch.setenv("DCFORMAT_DATA", str(tmp_path / "no"))
    with pytest.raises(DataError, match=r"no: expected a directory .*\(from \$DCFORMAT_DATA\), found nothing"):
        load_split("test")


def test_the_usual_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is treated as installed outside the checkout, so the module's own place has no data."""
    monkeypatch.setattr(datasets, "__file__", str(tmp_path / "site-packages" / "dcformat" / "datasets.py"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    deep = tmp_path / "1" / "2" / "3" / "4" / "5"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    with pytest.raises(DataError) as caught:
        load_split("test")
    looked = [deep / "data" / "mnist", *(parent / "data" / "mnist" for parent in list(deep.parents)[:4])]
    looked += [tmp_path / "site-packages" / "data" / "mnist", tmp_path / "share" / "dcformat" / "mnist"]
    message = str(caught.value)
    assert message.startswith(f"{looked[0]}: expected a directory with train-images-idx3-ubyte(.gz)")
    assert f"found nothing there or in {', '.join(map(str, looked[1:]))}; give --data DIR" in message
    for place in (tmp_path, tmp_path / "1"):  # five up, then four up
        shutil.copytree(MNIST, place / "data" / "mnist")
        if place == tmp_path:
            with pytest.raises(DataError):
                find_directory()
    assert find_directory() == tmp_path / "1" / "data" / "mnist"
    for place in reversed(looked):
        shutil.copytree(MNIST, place, dirs_exist_ok=True)
    assert find_directory() == looked[0]
    for place in looked[:-1]:
        shutil.rmtree(place)
    assert find_directory() == looked[-1]
    assert load_split("test").images.shape == (10_000, 28, 28)


def test_one_of_several_sets(tmp_path: Path) -> None:
    for name in ("emnist-digits", "emnist-letters"):
        put(tmp_path, f"{name}-test-images-idx3-ubyte", f"{name}-test-labels-idx1-ubyte")
    with pytest.raises(DataError, match="expected one data set, found emnist-digits, emnist-letters; name one"):
        load_split("test", tmp_path)
    check("test", tmp_path / "emnist-letters")
    with pytest.raises(DataError, match="emnist-balanced: expected a directory"):
        load_split("test", tmp_path / "emnist-balanced")


def test_mnist_is_in_the_checkout_and_whole() -> None:
    split = load_split("test")
    assert split.images.shape == (10_000, 28, 28)
    assert np.bincount(split.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_torchvisions_folders(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for path in MNIST.glob("t10k-*"):
        shutil.copy(path, folder)
    assert find_directory(tmp_path) == folder
    assert len(load_split("test", tmp_path).labels) == 10_000


@pytest.mark.parametrize("name", ["t10k-labels-idx1-ubyte", "train-labels-idx1-ubyte"])
def test_an_altered_mnist_is_refused(tmp_path: Path, name: str) -> None:
    for path in MNIST.glob("*-ubyte.gz"):
        shutil.copy(path, tmp_path)
    raw = bytearray(gzip.decompress((tmp_path / f"{name}.gz").read_bytes()))
    raw[100] ^= 1
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(DataError, match=rf"{name}: expected MNIST's SHA-256 [0-9a-f]{{64}} .*, found [0-9a-f]{{64}}"):
        load_split("test", tmp_path)


def test_another_set_that_is_called_mnist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the directory is called so"):
        load_split("test", put(tmp_path / "MNIST" / "raw"))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "expected IDX magic 00000803 .*found an empty file"),
        (b"\x00\x00\x08\x01" + bytes(20), "expected IDX magic 00000803 .*found 00000801"),
        (b"\x00\x00\x0d\x03" + bytes(20), "found 00000d03"),
        (b"\x00\x00\x08\x03\x00\x00", "expected a header of 16 bytes, found 6"),
        (idx(IMAGES)[:-1], r"expected 136 bytes for shape \(4, 5, 6\), found 135"),
        (idx(IMAGES) + b"\0", "expected 136 bytes .*found 137"),
        (
            b"\x00\x00\x08\x03" + b"\xff" * 12,
            r"expected at most 4,294,967,296 bytes, found shape \(4294967295, 4294967295,",
        ),
        (b"\x00\x00\x08\x03" + bytes(4) + b"\xff" * 8, r"expected a shape that NumPy supports, found \(0, 4294"),
        (idx(IMAGES[:3]), "expected a label for each of 3 images, found 4"),
        (idx(IMAGES[:0]), r"t10k-images-idx3-ubyte(\.gz)?: expected at least one image, found none"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_bytes_that_are_not_images(tmp_path: Path, raw: bytes, message: str, zipped: bool) -> None:
    put(tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte"
    if zipped:
        path.unlink()
        path = path.with_name(f"{path.name}.gz")
    path.write_bytes(gzip.compress(raw) if zipped else raw)
    with pytest.raises(DataError, match=message):
        load_split("test", tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flipped", "plain"])
def test_a_damaged_gzip_file(tmp_path: Path, damage: str) -> None:
    put(tmp_path, images="t10k-images-idx3-ubyte.gz")
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    flipped = whole[:-6] + bytes((whole[-6] ^ 1,)) + whole[-5:]
    path.write_bytes({"cut": whole[:-4], "flipped": flipped, "plain": idx(IMAGES)}[damage])
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz: expected a readable gzip file, found"):
        load_split("test", tmp_path)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_that_declares_too_much_is_not_read(tmp_path: Path, zipped: bool) -> None:
    name = "t10k-images-idx3-ubyte" + ".gz" * zipped
    put(tmp_path, images=name)
    with pytest.raises(DataError, match=rf"{name}: expected at most 119 bytes, found shape \(4, 5, 6\)"):
        load_split("test", tmp_path, max_memory=119)
    assert len(load_split("test", tmp_path, max_memory=120).labels) == 4
    assert len(load_split("test", tmp_path, max_memory=None).labels) == 4


@pytest.mark.parametrize("zipped", [False, True])
def test_no_more_is_read_than_is_declared(tmp_path: Path, zipped: bool) -> None:
    name = "t10k-images-idx3-ubyte" + ".gz" * zipped
    put(tmp_path, images=name)
    (tmp_path / name).write_bytes((gzip.compress if zipped else bytes)(idx(IMAGES) + bytes(64 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=rf"{name}: expected 136 bytes for shape \(4, 5, 6\), found 137 or more"):
            load_split("test", tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_missing_part_and_an_empty_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found none; give --data DIR or set DCFORMAT_DATA"):
        load_split("test", tmp_path)
    put(tmp_path)
    with pytest.raises(DataError, match=r"expected train-images-idx3-ubyte\(\.gz\), found no such file"):
        load_split("train", tmp_path)
    with pytest.raises(DataError, match="found a file"):
        load_split("test", tmp_path / "t10k-images-idx3-ubyte")
