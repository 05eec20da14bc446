"""The safetensors format: files that its own library writes are read, and files that it refuses are refused."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dcformat_interop import UnfitError, read_checkpoint, write_safetensors
from safetensors import safe_open
from safetensors.torch import save_file

import dcformat
from dcformat.dense import from_dense
from dcformat.model import Model, Tensor


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


ONE = entry("F32", [1], 0, 4)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"w": entry("F32", [1 << 40], 0, 1 << 42)}, b"", "expected 4,398,046,511,104 bytes of data, found 0"),
        ({"w": entry("F32", [2], 0, 4)}, b"1234", r"w: expected as many bytes as F32 of shape \[2\] has, found 4"),
        ({"w": entry("F32", [1 << 63, 1 << 63, 0], 0, 4)}, b"1234", "w: expected as many bytes"),
        ({"w": entry("F32", [1 << 63, 0], 0, 0)}, b"", r"w: expected a shape that NumPy supports, found \[9223"),
        ({"w": entry("BF16", [0, 1 << 62], 0, 0)}, b"", "w: expected a shape that NumPy supports"),
        ({"w": ONE, "v": ONE}, b"1234", "v: expected data at byte 4 behind the header, found 0 to 4"),
        ({"w": ONE, "v": entry("F32", [1], 8, 12)}, bytes(12), "v: expected data at byte 4"),
        ({"w": ONE}, bytes(5), "expected 4 bytes of data, found 5"),
        ({"w": entry("F32", [-1], 0, 4)}, b"1234", "w: expected dtype, shape and data_offsets"),
        ({"w": entry("F32", [1], 4, 0)}, b"1234", "w: expected"),
        ({"w": entry("F32", [1.0], 0, 4)}, b"1234", "w: expected dtype, shape"),  # type: ignore[list-item]
        ({"w": entry("F32", [True], 0, 4)}, b"1234", "w: expected dtype, shape"),
        ({"w": entry("F32", [1] * 65, 0, 4)}, b"1234", "w: expected dtype, shape"),
        ({"w": [1, 2, 3]}, b"", "w: expected dtype, shape"),
        ({"w": {**ONE, "dtype": 3}}, b"1234", "w: expected dtype, shape"),
        ([1], b"", "bytes of no known kind"),
        (b'{"w":1,"w":2}', b"", r"a damaged header \('w' twice\)"),
        (b'{"a":' + b"[" * 100_000, b"", "a damaged header"),
        (b'{"\xff":1}', b"", "a damaged header"),
        ({"__metadata__": {"a": 1}, "w": ONE}, b"1234", "__metadata__: expected text as metadata"),
        ({"__metadata__": [], "w": ONE}, b"1234", "__metadata__: expected text as metadata"),
    ],
)
def test_damaged_headers(tmp_path: Path, header: Any, data: bytes, message: str) -> None:
    with pytest.raises(UnfitError, match=rf"a\.safetensors: .*({message})"):
        read_checkpoint(write(tmp_path / "a.safetensors", header, data))


def test_the_memory_of_a_header_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", b"{" + b" " * 998 + b"}")
    with pytest.raises(UnfitError, match=r"a\.safetensors: header: .* at most 47,999 bytes .*takes 48,000 or more"):
        read_checkpoint(path, max_memory=47_999)
    with pytest.raises(UnfitError, match="expected at least one tensor"):
        read_checkpoint(path, max_memory=48_000)


def test_a_header_longer_than_its_file(tmp_path: Path) -> None:
    for length, message in (
        (1 << 31, "expected a header of at most 100,000,000 bytes, found 2,147,483,648"),
        (300, "expected a header of 300 bytes, found 2: the file is truncated"),
    ):
        (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", length) + b"{}")
        with pytest.raises(UnfitError, match=rf"a\.safetensors: {message}"):
            read_checkpoint(tmp_path / "a.safetensors")


def test_dtypes_that_only_safetensors_has(tmp_path: Path) -> None:
    header = {"f8": entry("F8_E4M3", [3], 0, 3), "new": entry("F4", [2], 3, 4), "w": entry("F32", [1], 4, 8)}
    read = read_checkpoint(write(tmp_path / "a.safetensors", header, bytes(4) + struct.pack("<f", 1.5)))
    assert read.tensors["w"].values.tolist() == [1.5]
    assert (read.tensors["f8"].dtype, read.tensors["f8"].values.tolist()) == ("float8_e4m3fn", [0, 0, 0])
    assert dict(read.left_out) == {"new": "F4"}


def test_every_dtype_comes_back_from_a_file(tmp_path: Path) -> None:
    codes = {
        "U64": 8, "I64": 8, "F64": 8, "C64": 8, "F32": 4, "U32": 4, "I32": 4, "BF16": 2, "F16": 2, "U16": 2, "I16": 2,
        "F8_E8M0": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1,
    }  # fmt: skip
    header, data = {}, b""
    for code, size in codes.items():
        part = bytes([1, 0, 1]) if code == "BOOL" else np.random.default_rng(size).bytes(3 * size)
        header[code] = entry(code, [3], len(data), len(data) + len(part))
        data += part
    path = tmp_path / "a.safetensors"
    write(path, header, data)
    tensors = {
        name: from_dense(name, dense.values, dense.dtype, exact=True)
        for name, dense in read_checkpoint(path).tensors.items()
    }
    dcformat.save(Model(tensors), tmp_path / "a.dcf")
    out = io.BytesIO()
    with dcformat.open(tmp_path / "a.dcf") as file:
        write_safetensors(tmp_path / "b", file, out)
    assert out.getvalue()[-len(data) :] == data
    assert list(read_checkpoint(io.BytesIO(out.getvalue())).tensors) == list(codes)


def test_bools_are_zeros_and_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", {"b": entry("BOOL", [2], 0, 2)}, b"\1\2")
    with pytest.raises(UnfitError, match=r"b: expected bytes of 0 or 1 in a tensor of bools, found 2"):
        read_checkpoint(path)


def test_metadata(tmp_path: Path) -> None:
    metadata = {"format": "pt", "x.dcformat_scale": "not ours", "w.dcformat_scale": "0.5"}
    save_file({"w": torch.ones(2, dtype=torch.int8), "x": torch.ones(1)}, tmp_path / "a.safetensors", metadata)
    read = read_checkpoint(tmp_path / "a.safetensors")
    assert dict(read.metadata) == {"format": "pt", "x.dcformat_scale": "not ours"}
    assert read.tensors["w"].scale == 0.5


@pytest.mark.parametrize(
    ("scale", "expected"),
    [("big", "a number"), ("nan", "a positive float32"), ("-1", "a positive float32"), ("0", "a positive float32"),
     ("0.1", "a positive float32"), ("1e300", "a positive float32"), ("inf", "a positive float32")],
)  # fmt: skip
def test_invalid_scales_are_refused(tmp_path: Path, scale: str, expected: str) -> None:
    header = {"__metadata__": {"w.dcformat_scale": scale}, "w": entry("I8", [1], 0, 1)}
    with pytest.raises(UnfitError, match=rf"a\.safetensors: w\.dcformat_scale: expected {expected}, found"):
        read_checkpoint(write(tmp_path / "a.safetensors", header, b"\x05"))


def test_output_is_aligned_and_equals_that_of_the_library(tmp_path: Path) -> None:
    values = {
        "z": ("float32", np.arange(3, dtype="<f4")), "a": ("int8", np.arange(5, dtype="i1")),
        "h": ("float16", np.arange(3, dtype="<f2")), "b": ("bfloat16", np.arange(1, 2, dtype="<u2")),
        "ä": ("float32", np.ones((1, 2), "<f4") * 3),
    }  # fmt: skip
    tensors = {n: Tensor(n, v.shape, d, v.reshape(-1)) for n, (d, v) in values.items()}
    model = Model(tensors, metadata={"safetensors.format": "pt", "author": "me"})
    with dcformat.open(dcformat.dumps(model)) as content, (tmp_path / "a.safetensors").open("wb") as out:
        write_safetensors("a", content, out)
    state = {
        n: torch.from_numpy(v).view(torch.bfloat16) if d == "bfloat16" else torch.from_numpy(v)
        for n, (d, v) in values.items()
    }
    save_file(state, tmp_path / "b.safetensors", metadata={"format": "pt"})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    raw = (tmp_path / "a.safetensors").read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    assert header.pop("__metadata__") == {"format": "pt"}
    for name, found in header.items():
        width = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1}[found["dtype"]]
        assert (start + found["data_offsets"][0]) % width == 0, name
    with safe_open(tmp_path / "a.safetensors", "pt") as archive:
        assert set(archive.keys()) == set(values)
