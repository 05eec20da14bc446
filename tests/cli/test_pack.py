"""`dcformat pack` and `unpack`: what goes in comes out, bit for bit, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import dcformat_runtime
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

import dcformat
from dcformat.model import Model, Tensor
from tests.cli.support import Invoke, State, lenet_300_100, refused


@pytest.mark.parametrize("mode", ["fast", "small", "tiny"])
def test_every_mode_gives_the_bits_back(invoke: Invoke, tmp_path: Path, npz: Path, state: State, mode: str) -> None:
    packed, out = tmp_path / "a.dcf", tmp_path / "a.safetensors"
    assert invoke("pack", npz, "-o", packed, "--architecture", "lenet-300-100", "--mode", mode).exit_code == 0
    assert packed.stat().st_size * 20 < 4 * sum(values.size for values in state.values())
    assert invoke("unpack", packed, "-o", out).exit_code == 0
    unpacked = load_file(out)
    assert {name: values.tobytes() for name, values in unpacked.items()} == {
        name: values.tobytes() for name, values in state.items()
    }
    assert all(unpacked[name].shape == values.shape for name, values in state.items())


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
def test_every_form_of_a_checkpoint_packs_to_the_same_tensors(
    invoke: Invoke, tmp_path: Path, state: State, dcf: Path, suffix: str
) -> None:
    checkpoint = tmp_path / f"model{suffix}"
    if suffix == ".npz":
        np.savez_compressed(checkpoint, **state)
    elif suffix == ".safetensors":
        save_file(state, checkpoint)
    else:
        torch.save({name: torch.from_numpy(values) for name, values in state.items()}, checkpoint)
    out = tmp_path / "out.dcf"
    assert invoke("pack", checkpoint, "-o", out, "--architecture", "lenet-300-100").exit_code == 0
    assert out.read_bytes() == dcf.read_bytes()


def test_unpack_to_npz(invoke: Invoke, tmp_path: Path, dcf: Path, state: State) -> None:
    out, again = tmp_path / "a.npz", tmp_path / "b.npz"
    assert invoke("unpack", dcf, "-o", out).exit_code == 0
    assert invoke("unpack", "-", "-o", again, stdin=dcf.read_bytes()).exit_code == 0
    assert again.read_bytes() == out.read_bytes()
    with np.load(out) as archive:
        assert archive.files == list(state)
        assert all(archive[name].tobytes() == state[name].tobytes() for name in state)


def test_the_names_are_the_checkpoints_own(invoke: Invoke, tmp_path: Path, state: State) -> None:
    renamed = dict(zip(("0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"), state.values(), strict=True))
    np.savez(tmp_path / "a.npz", **dict(reversed(renamed.items())))
    packed = tmp_path / "a.dcf"
    assert invoke("pack", tmp_path / "a.npz", "-o", packed, "--architecture", "lenet-300-100").exit_code == 0
    with dcformat.open(packed) as content:
        assert content.names == tuple(renamed)
        assert content.graph is not None
        assert [name for node in content.graph.nodes for name in node.tensors] == list(renamed)


def test_the_papers_relative_index(invoke: Invoke, tmp_path: Path, npz: Path, dcf: Path) -> None:
    arguments = ["pack", npz, "-o", tmp_path / "a.dcf", "--architecture", "lenet-300-100"]
    assert invoke(*arguments, "--relative-index", "filler").exit_code == 0
    assert (tmp_path / "a.dcf").stat().st_size > dcf.stat().st_size
    with dcformat.open(tmp_path / "a.dcf") as content, dcformat.open(dcf) as other:
        assert content.digest == other.digest


def test_few_distinct_values_get_a_codebook_unasked(dcf: Path) -> None:
    with dcformat.open(dcf) as content:
        assert content.info("fc1.weight").clusters == 16
        assert content.info("fc1.weight").form == "sparse"
        assert content.info("fc1.bias").clusters == 0


def test_half_precision_and_int8(invoke: Invoke, tmp_path: Path) -> None:
    state = {
        "half": torch.randn(3, 4).half(), "brain": torch.randn(5).bfloat16(),
        "small": torch.tensor([[1, 0, 0, -3]], dtype=torch.int8), "scalar": torch.tensor(2.0),
        "empty": torch.zeros(0, 3), "zeros": torch.zeros(2, 2, 2), "negative": torch.tensor([-0.0, 0.0]),
    }  # fmt: skip
    save_torch(state, tmp_path / "a.safetensors")
    result = invoke("pack", tmp_path / "a.safetensors", "-o", tmp_path / "a.dcf")
    assert result.exit_code == 0, result.output
    assert "cannot be run" in result.stderr
    assert invoke("unpack", tmp_path / "a.dcf", "-o", tmp_path / "b.safetensors").exit_code == 0
    with safe_open(tmp_path / "b.safetensors", "pt") as archive:
        assert set(archive.keys()) == set(state)
        for name, values in state.items():
            found = archive.get_tensor(name)
            assert found.dtype == values.dtype
            assert found.shape == values.shape
            assert (
                found.numpy(force=True).tobytes() == values.numpy(force=True).tobytes()
                if (values.dtype != torch.bfloat16)
                else torch.equal(found.view(torch.int16), values.view(torch.int16))
            )
    line = refused(invoke("unpack", tmp_path / "a.dcf", "-o", tmp_path / "b.npz"), "b.npz: brain", "bfloat16")
    assert "use .safetensors" in line
    assert not (tmp_path / "b.npz").exists()


def test_the_scale_of_int8_survives_there_and_back(invoke: Invoke, tmp_path: Path) -> None:
    codes = np.array([[1, 0, 0, -3]], np.int8)
    tensor = Tensor("q", (1, 4), "int8", codes.reshape(-1), scale=0.125)
    dcformat.save(Model({"q": tensor}), tmp_path / "a.dcf")
    assert invoke("unpack", tmp_path / "a.dcf", "-o", tmp_path / "a.safetensors").exit_code == 0
    assert load_file(tmp_path / "a.safetensors")["q"].tolist() == codes.tolist()
    assert invoke("pack", tmp_path / "a.safetensors", "-o", tmp_path / "b.dcf").exit_code == 0
    assert dcformat.load(tmp_path / "b.dcf").tensors["q"].scale == 0.125
    refused(invoke("unpack", tmp_path / "a.dcf", "-o", tmp_path / "a.npz"), "int8 with a scale")


def test_what_else_the_file_keeps(invoke: Invoke, tmp_path: Path, npz: Path) -> None:
    arguments = [
        "pack", npz, "-o", tmp_path / "a.dcf", "--architecture", "lenet-300-100", "--mean", "0.1307", "--std", "0.3081",
        "--labels", "zero,one,two,three,four,five,six,seven,eight,nine", "--metadata", "author=me",
        "--metadata", "note=a=b",
    ]  # fmt: skip
    assert invoke(*arguments).exit_code == 0
    with dcformat.open(tmp_path / "a.dcf") as content:
        assert content.graph is not None
        assert content.graph.preprocessing is not None
        assert content.graph.preprocessing.mean == (float(np.float32(0.1307)),)
        assert content.graph.preprocessing.std == (float(np.float32(0.3081)),)
        assert content.labels[3] == "three"
        assert dict(content.metadata) == {"author": "me", "note": "a=b"}


def test_hidden_units_in_another_order_compute_the_same(invoke: Invoke, tmp_path: Path, npz: Path, dcf: Path) -> None:
    out = tmp_path / "a.dcf"
    arguments = ["pack", npz, "-o", out, "--architecture", "lenet-300-100", "--reorder-units", "--fold-scales"]
    assert invoke(*arguments).exit_code == 0
    assert out.stat().st_size <= dcf.stat().st_size
    x = np.random.default_rng(8).random((20, 784), np.float32)
    np.testing.assert_allclose(dcformat_runtime.load(out)(x), dcformat_runtime.load(dcf)(x), rtol=1e-5, atol=1e-5)


def test_labels_from_a_file(invoke: Invoke, tmp_path: Path, npz: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"class {digit}\n" for digit in range(10)))
    arguments = ["pack", npz, "-o", tmp_path / "a.dcf", "--architecture", "lenet-300-100", "--labels"]
    assert invoke(*arguments, f"@{labels}").exit_code == 0
    assert dcformat.load(tmp_path / "a.dcf").labels[9] == "class 9"
    refused(invoke(*arguments, "a,b"), "--labels: expected 10 labels, found 2")
    labels.write_bytes(b"\xff\n")
    refused(invoke(*arguments, f"@{labels}"), labels, "UTF-8")
    refused(invoke(*arguments, "@nothing"), "nothing: expected an existing file")


def test_the_summary_as_json(invoke: Invoke, tmp_path: Path, npz: Path) -> None:
    out = tmp_path / "a.dcf"
    document = json.loads(invoke("pack", npz, "-o", out, "--architecture", "lenet-300-100", "--json").stdout)
    assert document["size"] == out.stat().st_size == sum(row["bytes"] for row in document["ledger"])
    assert document["parameters"] == 266_610


def test_a_shape_that_does_not_fit_leaves_the_old_file(invoke: Invoke, tmp_path: Path, state: State) -> None:
    np.savez(tmp_path / "a.npz", **{**state, "fc2.weight": np.zeros((100, 301), np.float32)})
    out = tmp_path / "a.dcf"
    out.write_bytes(b"precious")
    result = invoke("pack", tmp_path / "a.npz", "-o", out, "--architecture", "lenet-300-100")
    refused(result, "a.npz: fc2.weight", "expected shape (100, 300), found (100, 301)")
    assert out.read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.dcf", "a.npz"]


def test_values_that_are_not_finite_leave_the_old_file(invoke: Invoke, tmp_path: Path) -> None:
    state = lenet_300_100()
    state["fc3.weight"][0, 0] = np.nan
    np.savez(tmp_path / "a.npz", **state)
    out = tmp_path / "a.dcf"
    out.write_bytes(b"precious")
    result = invoke("pack", tmp_path / "a.npz", "-o", out, "--architecture", "lenet-300-100")
    refused(result, "a.npz: fc3.weight: expected finite values, found NaN or infinity in 1 places")
    assert out.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mode", "huge"], "'huge' is not one of"),
        (["--architecture", "alexnet"], "'alexnet' is not one of"),
        (["--mean", "0.5"], "need --architecture"),
        (["--reorder-units"], "need --architecture"),
        (["--architecture", "lenet-5", "--mean", "many"], "expected finite numbers"),
        (["--architecture", "lenet-5", "--std", "nan"], "expected finite numbers"),
        (["--metadata", "author"], "expected KEY=VALUE, found 'author'"),
        (["--metadata", "a=1", "--metadata", "a=2"], "expected each key once, found 'a' again"),
    ],
)
def test_misuse(invoke: Invoke, tmp_path: Path, npz: Path, options: list[str], message: str) -> None:
    refused(invoke("pack", npz, "-o", tmp_path / "a.dcf", *options), message, code=2)


def test_a_std_of_zero_and_channels_that_are_not_there(invoke: Invoke, tmp_path: Path, npz: Path) -> None:
    arguments = ["pack", npz, "-o", tmp_path / "a.dcf", "--architecture", "lenet-300-100"]
    refused(invoke(*arguments, "--std", "0"), "preprocessing", "std not 0")
    refused(invoke(*arguments, "--mean", "1,2,3", "--std", "1,2,3"), "preprocessing", "1 or 1 values")


@pytest.mark.parametrize("suffix", ["", ".pt", ".onnx"])
def test_unpack_to_something_else(invoke: Invoke, tmp_path: Path, dcf: Path, suffix: str) -> None:
    out = tmp_path / f"a{suffix}"
    refused(invoke("unpack", dcf, "-o", out), "ending in .safetensors or .npz", code=2)


def test_unpack_leaves_the_old_file_when_the_packed_one_is_damaged(invoke: Invoke, tmp_path: Path, dcf: Path) -> None:
    raw = bytearray(dcf.read_bytes())
    raw[len(raw) // 2] ^= 16
    (tmp_path / "bad.dcf").write_bytes(raw)
    for name in ("out.safetensors", "out.npz"):
        (tmp_path / name).write_bytes(b"precious")
        refused(invoke("unpack", tmp_path / "bad.dcf", "-o", tmp_path / name), "bad.dcf: E05")
        assert (tmp_path / name).read_bytes() == b"precious"


def test_a_name_that_is_safetensors_metadata(invoke: Invoke, tmp_path: Path) -> None:
    tensor = Tensor("__metadata__", (2,), "float32", np.ones(2, "<f4") * np.arange(1, 3, dtype="<f4"))
    dcformat.save(Model({"__metadata__": tensor}), tmp_path / "a.dcf")
    refused(invoke("unpack", tmp_path / "a.dcf", "-o", tmp_path / "a.safetensors"), "'__metadata__'")
