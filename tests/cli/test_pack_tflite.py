"""`dcformat pack` of TensorFlow Lite models: the check, the options, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dcformat_interop import TfliteImport

import dcformat
from dcformat.graph import Preprocessing
from tests.cli.support import PACK, Invoke, refused
from tests.interop.tflite.support import HAS_LITERT, random
from tests.interop.tflite.writer import Operator, Tensor, constant, model

pytestmark = pytest.mark.needs_compiler


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Write a small classifier of pictures."""
    tensors = [
        Tensor((1, 8, 8, 3), name="image"), constant(random((4, 3, 3, 3), 1), name="net/conv/Conv2D"),
        constant(random((4,), 2)), Tensor((1, 8, 8, 4)), constant([1, 2]), Tensor((1, 4)),
        constant(random((5, 4), 3), name="net/dense/MatMul"), constant(random((5,), 4)), Tensor((1, 5), name="scores"),
    ]  # fmt: skip
    operators = [
        Operator("CONV_2D", [0, 1, 2], [3], {"stride_h": 1, "stride_w": 1, "activation": 1}),
        Operator("MEAN", [3, 4], [5]), Operator("FULLY_CONNECTED", [5, 6, 7], [8]),
    ]  # fmt: skip
    path = tmp_path / "network.tflite"
    path.write_bytes(model(tensors, operators, [0], [8]))
    return path


def test_a_network_is_packed(invoke: Invoke, tmp_path: Path, network: Path) -> None:
    packed = tmp_path / "network.dcf"
    result = invoke(*PACK, network, "-o", packed, "--labels", "a,b,c,d,e")
    assert result.exit_code == 0, result.stderr
    checked = "checked against LiteRT" if HAS_LITERT else "not checked, as LiteRT is not installed"
    assert checked in result.stderr
    found = dcformat.load(packed)
    assert found.graph is not None
    assert [node.kind for node in found.graph.nodes] == ["transpose", "conv", "relu", "reduce", "linear"]
    assert found.graph.inputs[0].shape == (8, 8, 3)
    assert found.labels == tuple("abcde")
    assert set(found.tensors) == {"conv.weight", "conv.bias", "dense.weight", "dense.bias"}


def test_the_content_tells_the_kind(invoke: Invoke, tmp_path: Path, network: Path) -> None:
    other = tmp_path / "network.bin"
    network.rename(other)
    assert invoke(*PACK, other, "-o", tmp_path / "a.dcf").exit_code == 0


def test_without_litert(
    invoke: Invoke, tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr("dcformat_interop.tflite_import.reading.litert_version", lambda: None)
    result = invoke(*PACK, network, "-o", tmp_path / "a.dcf")
    assert result.exit_code == 0
    assert "not checked, as LiteRT is not installed: pip install 'dcformat[tflite]'" in result.stderr


@pytest.mark.skipif(not HAS_LITERT, reason="LiteRT is not installed (ai-edge-litert)")
def test_another_network_is_never_written(
    invoke: Invoke, tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    check = TfliteImport.check

    def shifted(self: TfliteImport, run: Any) -> Any:
        return check(self, lambda inputs: {name: y + np.float32(0.01) for name, y in run(inputs).items()})

    monkeypatch.setattr(TfliteImport, "check", shifted)
    result = invoke(*PACK, network, "-o", tmp_path / "a.dcf")
    refused(
        result, "network.tflite: output 'scores': expected at most 0.0001 of the largest number between it and that"
    )
    assert not (tmp_path / "a.dcf").exists()


def test_damaged_files_and_wrong_options(invoke: Invoke, tmp_path: Path, network: Path) -> None:
    packed = tmp_path / "a.dcf"
    for options, message in (
        (("--architecture", "lenet-5"), "a TFLite model holds its own network"),
        (("--set", "image=1"), "--set needs an ONNX model"),
        (("--float32",), "--float32: not for a TensorFlow Lite model"),
        (("--jobs", "2", "--shards", "1M"), "--jobs, --shards: only for safetensors files"),
    ):
        refused(invoke(*PACK, network, "-o", packed, *options), message, code=2)
    network.write_bytes(network.read_bytes()[:-100])
    refused(invoke(*PACK, network, "-o", packed), "network.tflite: ", "expected")
    network.write_bytes(b"")
    refused(invoke(*PACK, network, "-o", packed), "network.tflite: not a TensorFlow Lite model (an empty file)")
    assert not packed.exists()


def test_means_of_channels_that_come_last(invoke: Invoke, tmp_path: Path) -> None:
    source = tmp_path / "a.tflite"
    source.write_bytes(model([Tensor((1, 4, 4, 3)), Tensor()], [Operator("ABS", [0], [1])], [0], [1]))
    out = tmp_path / "a.dcf"
    refused(
        invoke(*PACK, source, "-o", out, "--mean", "0.5,0.4,0.3"), f"{source}: --mean and --std",
        "expected one number for all channels, which are the last dimension of the input (4, 4, 3), found 3",
    )  # fmt: skip
    assert not out.exists()
    assert invoke(*PACK, source, "-o", out, "--mean", "0.5", "--std", "0.25").exit_code == 0
    graph = dcformat.load(out).graph
    assert graph is not None
    assert graph.preprocessing == Preprocessing((0.5,), (0.25,))
