"""NumPy's archives: each member is read separately, its size is known from its header, and no pickle is loaded."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dcformat_interop import UnfitError, read_checkpoint

from tests.cli.support import save_npz

W = np.array([[1, 2], [3, 4]], np.float32)


def npy(values: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, values)
    return out.getvalue()


def header(text: str, version: int = 1) -> bytes:
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes((version, 0)) + size + text.encode("latin-1")


def archive(path: Path, *members: tuple[str, bytes], **options: Any) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", **options) as file:
        warnings.simplefilter("ignore")  # of duplicates
        for name, content in members:
            file.writestr(name, content)
    return path


def test_names_that_differ_by_a_suffix_are_two(tmp_path: Path) -> None:
    save_npz(tmp_path / "a.npz", {"w": W, "w.npy": W + 10})
    read = read_checkpoint(tmp_path / "a.npz").tensors
    assert {name: dense.values.tolist() for name, dense in read.items()} == {
        "w": [[1, 2], [3, 4]], "w.npy": [[11, 12], [13, 14]],
    }  # fmt: skip


@pytest.mark.parametrize("names", [("w", "w.npy"), ("w.npy", "w"), ("w.npy", "w.npy"), ("w", "w")])
def test_two_members_of_one_name(tmp_path: Path, names: tuple[str, str]) -> None:
    path = archive(tmp_path / "a.npz", (names[0], npy(W)), (names[1], npy(W + 1)))
    with pytest.raises(UnfitError, match=f"w: expected one member of each name, found '{names[0]}' and '{names[1]}'"):
        read_checkpoint(path)


def test_every_layout_gives_the_same_values(tmp_path: Path) -> None:
    wide = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.savez(tmp_path / "a.npz", c=wide, f=np.asfortranarray(wide), big=wide.astype(">f4"), t=wide.T, z=np.float32(5))
    read = read_checkpoint(tmp_path / "a.npz").tensors
    for name in ("c", "f", "big"):
        assert read[name].values.tobytes() == wide.tobytes()
        assert read[name].values.shape == (2, 3, 4)
    assert read["t"].values.tobytes() == np.ascontiguousarray(wide.T).tobytes()
    assert read["z"].values.shape == ()
    assert read["z"].values == 5


def test_text_dates_records_and_objects_are_left_out(tmp_path: Path) -> None:
    odd = {"s": np.array("x"), "d": np.array("2020", "M8[D]"), "r": np.zeros(2, "i4,f4"), "o": np.array([{}], object)}
    save_npz(tmp_path / "a.npz", {"w": W, **odd})
    assert dict(read_checkpoint(tmp_path / "a.npz").left_out) == {
        "s": "str32", "d": "datetime64[D]", "r": "void64", "o": "object",
    }  # fmt: skip


def test_a_small_file_that_claims_much(tmp_path: Path) -> None:
    text = "{'descr': '<f4', 'fortran_order': False, 'shape': (1073741824, 2), }"
    path = archive(tmp_path / "a.npz", ("w.npy", header(text) + bytes(1 << 20)), compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10_000
    with pytest.raises(UnfitError, match=r"a\.npz: w: .*at most 4,294,967,296 bytes.*takes 8,589,934,592 or more"):
        read_checkpoint(path)
    with pytest.raises(UnfitError, match=r"w: expected 8,000,000 bytes of data, found 1,048,576"):
        short = header(text.replace("1073741824", "1000000"))
        read_checkpoint(archive(path, ("w.npy", short + bytes(1 << 20))))
    with pytest.raises(UnfitError, match=r"w: expected 8 bytes of data, found more"):
        read_checkpoint(archive(path, ("w.npy", header(text.replace("1073741824", "1")) + bytes(1 << 20))))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", r"a member that is no array \(w\)"),
        (b"", "a member that is no array"),
        (b"\x93NUMPY\x04\x00" + bytes(99), r"expected \.npy version 1, 2 or 3, found 4\.0"),
        (header("x" * 10_001), "expected a header of at most 10000 bytes, found 10001"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "expected a header of at most 10000 bytes, found 4294967295"),
        (header("{'descr': '<f4'"), "expected the header of an array, found a damaged one"),
        (header("((((((("), "found a damaged one"),
        (header("{'descr': 'zz', 'fortran_order': False, 'shape': (1,), }"), "found a damaged one"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"), "expected a shape without negative"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }"), "found a damaged one"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (0," + "1," * 99 + "), }"), "w: expected a NumPy"),
    ],
)
def test_members_that_are_not_arrays(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UnfitError, match=rf"a\.npz: .*{message}"):
        read_checkpoint(archive(tmp_path / "a.npz", ("w.npy", content)))


@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_version_of_the_header(tmp_path: Path, version: int) -> None:
    text = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"
    path = archive(tmp_path / "a.npz", ("w.npy", header(text, version) + W[0].tobytes()))
    assert read_checkpoint(path).tensors["w"].values.tolist() == [1, 2]


def test_encrypted_members_and_other_compressions(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", ("w.npy", npy(W)))
    raw = bytearray(path.read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        raw[raw.index(mark) + place] |= 1
    path.write_bytes(raw)
    with pytest.raises(UnfitError, match=r"a\.npz: w: .*found an encrypted member"):
        read_checkpoint(path)
    for compression in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = archive(tmp_path / "b.npz", ("w.npy", npy(W)), compression=compression)
        with pytest.raises(UnfitError, match=r"b\.npz: w: expected members stored or deflated"):
            read_checkpoint(path)


def test_an_empty_archive_and_other_zips(tmp_path: Path) -> None:
    with pytest.raises(UnfitError, match=r"a\.npz: expected at least one tensor of .*, found none"):
        read_checkpoint(archive(tmp_path / "a.npz"))
    with pytest.raises(UnfitError, match=r"b\.zip: expected a NumPy \.npz .*no array \(readme\.txt\)"):
        read_checkpoint(archive(tmp_path / "b.zip", ("readme.txt", b"hello")))
