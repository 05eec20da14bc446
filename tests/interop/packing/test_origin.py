"""The description of a packed checkpoint's safetensors files is read, or refused with the reason."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
import pytest
from dcformat_interop import UnfitError
from dcformat_interop.packing.origin import ORIGIN_KIND, SafetensorsOrigin
from dcformat_interop.packing.packed_files import PackedFiles

import dcformat
from dcformat.errors import MemoryLimitError
from dcformat.model import Extension

WEIGHT = np.array([1.5, 2.5], np.float32)


def header(code: str = "F32", shape: tuple[int, ...] = (2,), name: str = "w") -> str:
    return json.dumps({name: {"dtype": code, "shape": list(shape), "data_offsets": [0, 8]}})


def origin(payload: bytes | dict[str, Any] | None, count: int = 1) -> SafetensorsOrigin | None:
    """Return the file names that a file of the tensor ``w`` gives, or several files, the first with the description."""
    text = zlib.compress(json.dumps(payload).encode()) if isinstance(payload, dict) else payload
    other = Extension(ORIGIN_KIND - 1, b"of another kind")
    extensions = (other,) if text is None else (other, Extension(ORIGIN_KIND, text))
    packed = dcformat.dumps(dcformat.Model({"w": dcformat.from_dense("w", WEIGHT)}, extensions=extensions))
    again = dcformat.dumps(dcformat.Model({"w": dcformat.from_dense("w", WEIGHT)}))
    with dcformat.open(packed) as first, dcformat.open(again) as second:
        return PackedFiles("a.dcf", [first, second][:count]).origin()


def test_a_description_is_read() -> None:
    found = origin({"index": ["i.json", "{}"], "files": [["a.safetensors", header()]]})
    assert found is not None and found.names == ["a.safetensors", "i.json"]
    assert found.files[0][1].header == header().encode()
    assert origin(None) is None


def test_the_same_tensor_in_two_files() -> None:
    with pytest.raises(UnfitError, match=r"a\.dcf: w: expected each tensor in one file, found it in two"):
        origin(None, count=2)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "a damaged one (it is cut short or too long)"),
        (b"not compressed", "a damaged one (Error"),
        (zlib.compress(b"{}")[:-1], "a damaged one (it is cut short or too long)"),
        (zlib.compress(b"{}") + b"x", "a damaged one (it is cut short or too long)"),
        (zlib.compress(b"[" * 100_000), "a damaged one (maximum recursion depth"),
        (zlib.compress(b"\xff"), "a damaged one ('utf-8' codec"),
        ({}, "a damaged one ('index')"),
        ({"index": [], "files": []}, "a damaged one (list index out of range)"),
        ({"index": None, "files": [5]}, "a damaged one (cannot unpack"),
        ({"index": None, "files": [["../a", "{}"]]}, "expected names of files in the directory of the index"),
        ({"index": ["a", "{}"], "files": [["a", "{}"]]}, "expected files with different names, found a, a"),
        ({"index": None, "files": [["a", "{"]]}, "a.dcf: a: expected a safetensors file, found a damaged header"),
        ({"index": None, "files": [["a", "[]"]]}, "found a header that is no JSON object"),
        ({"index": None, "files": [["a", "{}"]]}, "expected the tensors of the safetensors files"),
        ({"index": None, "files": [["a", header()], ["b", header()]]}, "expected the tensors of the safetensors files"),
        ({"index": None, "files": [["a", header(name="v")]]}, "expected the tensors of the safetensors files"),
        ({"index": None, "files": [["a", header("F4")]]}, "w: expected dtypes that a .dcf file holds, found F4"),
        ({"index": None, "files": [["a", header("I32")]]}, "w: expected int32 of shape (2,), found float32 (2,)"),
        ({"index": None, "files": [["a", header("F32", (2, 1))]]}, "w: expected float32 of shape (2, 1), found"),
    ],
)  # fmt: skip
def test_descriptions_that_are_refused(payload: bytes | dict[str, Any], message: str) -> None:
    with pytest.raises(UnfitError) as error:
        origin(payload)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_memory_of_a_description_is_counted() -> None:
    text = json.dumps({"index": None, "files": [["a.safetensors", "{}" + " " * 5_000_000]]}).encode()
    packed = dcformat.dumps(dcformat.Model({}, extensions=(Extension(ORIGIN_KIND, zlib.compress(text)),)))
    assert len(packed) < 10_000
    with dcformat.open(packed) as file:
        content = PackedFiles("a.dcf", [file])
        with pytest.raises(MemoryLimitError, match=r"at most 1,041,666 \(100,000,000 of max_memory, 96 for each\)"):
            content.origin(100_000_000)
        found = content.origin()
    assert found is not None and found.names == ["a.safetensors"]
