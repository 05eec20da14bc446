"""The output of `save` and `dumps` is read back before anybody gets it, and refused unless it is the model."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dcformat
from dcformat.model import Model, Tensor
from dcformat.read_back import ReadBackError, require_read_back
from dcformat.records import replace
from tests.format.strategies import small_model

Wrong = Callable[[Tensor], Tensor]


def two() -> Model:
    values = np.linspace(-1, 1, 40, dtype=np.float32)
    return Model({name: dcformat.from_dense(name, values * factor) for name, factor in (("a", 1), ("b", 3))})


def decoding(monkeypatch: pytest.MonkeyPatch, change: Wrong = lambda tensor: tensor) -> list[str]:
    """Let each decoded tensor pass through `change`; return a list that gets the names of decoded tensors."""
    names: list[str] = []
    original = dcformat.DcfFile.tensor

    def tensor(self: dcformat.DcfFile, name: str, **more: Any) -> Tensor:
        names.append(name)
        return change(original(self, name, **more))

    monkeypatch.setattr(dcformat.DcfFile, "tensor", tensor)
    return names


def one_bit_off(tensor: Tensor) -> Tensor:
    if tensor.name != "b":
        return tensor
    values = tensor.to_dense().copy()
    values.view(np.uint32)[7] ^= 1
    return replace(tensor, data=values, codebook=None, indptr=None, indices=None)


@pytest.mark.parametrize("mode", ["fast", "small", "auto"])
def test_each_tensor_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Any) -> None:
    names = decoding(monkeypatch)
    dcformat.save(two(), tmp_path / "a.dcf", mode=mode)
    assert names == ["a", "b"]
    dcformat.dumps(two(), mode=mode)
    assert names == ["a", "b"] * 2


def test_copies_are_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    names = decoding(monkeypatch)
    same = two().tensors["a"]
    dcformat.dumps(Model({"a": same, "c": replace(same, name="c")}))
    assert names == ["a"]


def test_a_wrong_bit_is_found_and_the_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.dcf"
    path.write_bytes(b"an older file")
    decoding(monkeypatch, one_bit_off)
    with pytest.raises(ReadBackError, match=r"a\.dcf: b: expected the model's values when read back, found others"):
        dcformat.save(two(), path)
    assert path.read_bytes() == b"an older file"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ReadBackError, match="file: b: expected the model's values when read back, found others"):
        dcformat.dumps(two())


def test_every_flipped_bit_is_found() -> None:
    model = two()
    data = bytearray(dcformat.dumps(model))
    for bit in range(8 * len(data)):
        data[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(ReadBackError, match=r"^x: expected the model"):
            require_read_back(model, bytes(data), "x")
        data[bit >> 3] ^= 1 << (bit & 7)


def test_another_model_is_refused() -> None:
    model = small_model()
    data = dcformat.dumps(model)
    for other in (replace(model, labels=(*model.labels, "more")), replace(model, metadata={"key": "other"})):
        with pytest.raises(ReadBackError, match="x: expected the model's names and network when read back"):
            require_read_back(other, data, "x")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_gets_what_was_read_back(tmp_path: Path) -> None:
    pipe, found = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    dcformat.save(two(), pipe)
    reader.join()
    assert found == [dcformat.dumps(two())]
