"""`dcformat pack` and `unpack` return every tensor bit for bit, or refuse it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import dcformat_runtime
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

import dcformat
from dcformat.dense import from_dense
from dcformat.model import Tensor
from tests.cli.support import PACK, Invoke, State, lenet_300_100, refused, save_npz


@pytest.mark.needs_compiler
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
        save_npz(checkpoint, state, compressed=True)
    elif suffix == ".safetensors":
        save_file(state, checkpoint)
    else:
        torch.save({name: torch.from_numpy(values) for name, values in state.items()}, checkpoint)
    out = tmp_path / "out.dcf"
    assert invoke(*PACK, checkpoint, "-o", out, "--architecture", "lenet-300-100").exit_code == 0
    assert out.read_bytes() == dcf.read_bytes()


def test_the_names_are_the_checkpoints_own(invoke: Invoke, tmp_path: Path, state: State) -> None:
    renamed = dict(zip(("0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"), state.values(), strict=True))
    save_npz(tmp_path / "a.npz", dict(reversed(renamed.items())))
    packed = tmp_path / "a.dcf"
    assert invoke(*PACK, tmp_path / "a.npz", "-o", packed, "--architecture", "lenet-300-100").exit_code == 0
    with dcformat.open(packed) as content:
        assert content.names == tuple(renamed)
        assert content.graph is not None
        assert [name for node in content.graph.nodes for name in node.tensors] == list(renamed)


def test_the_papers_relative_index(invoke: Invoke, tmp_path: Path, npz: Path, dcf: Path) -> None:
    arguments = [*PACK, npz, "-o", tmp_path / "a.dcf", "--architecture", "lenet-300-100"]
    assert invoke(*arguments, "--relative-index", "filler").exit_code == 0
    assert (tmp_path / "a.dcf").stat().st_size > dcf.stat().st_size
    with dcformat.open(tmp_path / "a.dcf") as content, dcformat.open(dcf) as other:
        assert content.digest == other.digest


def test_few_distinct_values_get_a_codebook_unasked(dcf: Path) -> None:
    with dcformat.open(dcf) as content:
        assert content.info("fc1.weight").codebook_size == 16
        assert content.info("fc1.weight").form == "sparse"
        assert content.info("fc1.bias").codebook_size == 0


def test_half_precision_and_int8(invoke: Invoke, tmp_path: Path) -> None:
    state = {
        "half": torch.randn(3, 4).half(), "brain": torch.randn(5).bfloat16(),
        "small": torch.tensor([[1, 0, 0, -3]], dtype=torch.int8), "scalar": torch.tensor(2.0),
        "empty": torch.zeros(0, 3), "zeros": torch.zeros(2, 2, 2), "negative": torch.tensor([-1.5, 0.0]),
    }  # fmt: skip
    save_torch(state, tmp_path / "a.safetensors")
    result = invoke(*PACK, tmp_path / "a.safetensors", "--exact", "-o", tmp_path / "a.dcf")
    assert result.exit_code == 0, result.output
    assert "cannot be run" in result.stderr
    assert "negative" not in result.stderr
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


def test_labels_metadata_and_preprocessing_are_kept(invoke: Invoke, tmp_path: Path, npz: Path) -> None:
    arguments = [
        *PACK, npz, "-o", tmp_path / "a.dcf", "--architecture", "lenet-300-100", "--mean", "0.1307", "--std", "0.3081",
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


@pytest.mark.needs_compiler
def test_hidden_units_in_another_order_compute_the_same(invoke: Invoke, tmp_path: Path, npz: Path, dcf: Path) -> None:
    out = tmp_path / "a.dcf"
    arguments = [*PACK, npz, "-o", out, "--architecture", "lenet-300-100", "--reorder-units", "--fold-scales"]
    assert invoke(*arguments).exit_code == 0
    assert out.stat().st_size <= dcf.stat().st_size
    x = np.random.default_rng(8).random((20, 784), np.float32)
    np.testing.assert_allclose(dcformat_runtime.load(out)(x), dcformat_runtime.load(dcf)(x), rtol=1e-5, atol=1e-5)


def test_labels_from_a_file(invoke: Invoke, tmp_path: Path, npz: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"class {digit}\n" for digit in range(10)))
    arguments = [*PACK, npz, "-f", "-o", tmp_path / "a.dcf", "--architecture", "lenet-300-100", "--labels"]
    assert invoke(*arguments, f"@{labels}").exit_code == 0
    assert dcformat.load(tmp_path / "a.dcf").labels[9] == "class 9"
    refused(invoke(*arguments, "a,b"), "--labels: expected 10 labels, found 2")
    labels.write_bytes(b"\xff\n")
    refused(invoke(*arguments, f"@{labels}"), labels, "UTF-8")
    refused(invoke(*arguments, "@nothing"), "nothing: no such file or directory")


def test_the_summary_as_json(invoke: Invoke, tmp_path: Path, npz: Path) -> None:
    out = tmp_path / "a.dcf"
    document = json.loads(invoke(*PACK, npz, "-o", out, "--architecture", "lenet-300-100", "--json").stdout)
    assert document["size"] == out.stat().st_size == sum(row["bytes"] for row in document["ledger"])
    assert document["parameters"] == 266_610


def test_a_shape_that_does_not_fit_leaves_the_old_file(invoke: Invoke, tmp_path: Path, state: State) -> None:
    save_npz(tmp_path / "a.npz", {**state, "fc2.weight": np.zeros((100, 301), np.float32)})
    out = tmp_path / "a.dcf"
    out.write_bytes(b"precious")
    result = invoke(*PACK, tmp_path / "a.npz", "-f", "-o", out, "--architecture", "lenet-300-100")
    refused(result, "a.npz: fc2.weight", "expected shape (100, 300), found (100, 301)")
    assert out.read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.dcf", "a.npz"]


def test_values_that_are_not_finite_leave_the_old_file(invoke: Invoke, tmp_path: Path) -> None:
    state = lenet_300_100()
    state["fc3.weight"][0, 0] = np.nan
    save_npz(tmp_path / "a.npz", state)
    out = tmp_path / "a.dcf"
    out.write_bytes(b"precious")
    result = invoke(*PACK, tmp_path / "a.npz", "-f", "-o", out, "--architecture", "lenet-300-100")
    refused(
        result,
        "a.npz: fc3.weight: expected finite values of a dtype that lenet-300-100 can use",
        "found NaN or infinity in 1 place",
    )
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
    refused(invoke(*PACK, npz, "-o", tmp_path / "a.dcf", *options), message, code=2)


def test_a_std_of_zero_and_too_many_channels(invoke: Invoke, tmp_path: Path, npz: Path) -> None:
    arguments = [*PACK, npz, "-o", tmp_path / "a.dcf", "--architecture", "lenet-300-100"]
    refused(invoke(*arguments, "--std", "0"), "preprocessing", "std not 0")
    refused(invoke(*arguments, "--mean", "1,2,3", "--std", "1,2,3"), "preprocessing", "expected 1 value each")


def test_a_net_file_needs_an_architecture_of_convolutions(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "a.net").write_bytes(bytes(8))
    refused(invoke(*PACK, tmp_path / "a.net", "-o", tmp_path / "a.dcf"), "give --architecture", code=2)
    arguments = [*PACK, tmp_path / "a.net", "-o", tmp_path / "a.dcf", "--architecture"]
    refused(invoke(*arguments, "lenet-5"), "only convolutions", "fc1.weight")
    refused(invoke(*arguments, "squeezenet"), "a.net: expected 104 bytes of counts, found 8 bytes")


def test_a_net_file_of_another_kind(invoke: Invoke, tmp_path: Path, npz: Path, dcf: Path) -> None:
    (tmp_path / "a.net").write_bytes(npz.read_bytes())
    result = invoke(*PACK, tmp_path / "a.net", "-o", tmp_path / "a.dcf", "--architecture", "lenet-300-100")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "a.dcf").read_bytes() == dcf.read_bytes()


@pytest.mark.parametrize(("dtype", "bits"), [("float32", "<u4"), ("float16", "<u2"), ("bfloat16", "<u2")])
def test_negative_zeros(invoke: Invoke, tmp_path: Path, dtype: str, bits: str) -> None:
    values = torch.tensor([[-0.0, 0.0, 1.5], [-0.0, -1.5, 2.0]], dtype=getattr(torch, dtype))
    save_torch({"w": values}, tmp_path / "a.safetensors")
    result = invoke(*PACK, tmp_path / "a.safetensors", "-o", tmp_path / "plain.dcf")
    assert "note: stored 2 negative zeros as positive zero (--exact keeps the sign)\n" in result.stderr
    assert "negative" not in invoke(*PACK, tmp_path / "a.safetensors", "-o", tmp_path / "e.dcf", "--exact").stderr
    original = values.view(torch.int16 if bits == "<u2" else torch.int32).numpy().view(bits)
    exact = dcformat.load(tmp_path / "e.dcf").tensors["w"].to_dense().view(bits)
    plain = dcformat.load(tmp_path / "plain.dcf").tensors["w"].to_dense().view(bits)
    assert exact.tolist() == original.tolist()
    assert plain.tolist() == np.where(values.float().numpy() == 0, 0, original).tolist()


def test_one_negative_zero(invoke: Invoke, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.array([-0.0, 1], np.float32))
    assert (
        "note: stored 1 negative zero as positive zero ("
        in invoke(*PACK, tmp_path / "a.npz", "-o", tmp_path / "a.dcf").stderr
    )


def test_denormal_values_are_kept_with_a_note(invoke: Invoke, tmp_path: Path) -> None:
    single = torch.tensor([1e-40, 1.0, -2e-42, 0.0, -0.0])
    brain = torch.tensor([1e-39, 2.0], dtype=torch.bfloat16)
    half = torch.tensor([1e-7, 1.0], dtype=torch.float16)  # denormal there, normal as float32
    save_torch({"a": single, "b": brain, "c": half, "d": torch.tensor(0.0)}, tmp_path / "a.safetensors")
    result = invoke(*PACK, tmp_path / "a.safetensors", "-o", tmp_path / "a.dcf", "--exact")
    assert "note: 3 denormal values (slow on most processors) in a, b\n" in result.stderr
    assert dcformat.load(tmp_path / "a.dcf").tensors["a"].to_dense().tobytes() == single.numpy().tobytes()


def test_nothing_is_left_out_unasked(invoke: Invoke, tmp_path: Path) -> None:
    """If an archive lacked a part of its checkpoint, nobody would notice the loss."""
    torch.save({"w": torch.ones(2), "n": 3, "z z": torch.ones(2, dtype=torch.complex128)}, tmp_path / "a.bin")
    header = {"w": [0, 4, "F32", [1]], "new": [4, 5, "F4", [2]]}
    text = json.dumps({n: {"dtype": c, "shape": s, "data_offsets": [a, b]} for n, (a, b, c, s) in header.items()})
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text.encode() + bytes(5))
    np.savez(tmp_path / "a.npz", w=np.ones(2), text=np.array(["a"]))
    held = "expected only dtypes that safetensors has, found"
    for name, found, ways in (
        ("a.bin", "2 entries: n (int), z z (complex128)", "--skip n --skip 'z z'"),
        ("a.safetensors", "1 entry: new (F4)", "--skip new"),
        ("a.npz", "1 entry: text (str32)", "--skip text"),
    ):
        result = invoke(*PACK, tmp_path / name, "-o", tmp_path / "a.dcf")
        assert result.exit_code == 1
        assert result.stderr == f"dcformat: {tmp_path / name}: {held} {found} ({ways} to leave out)\n"
        assert not (tmp_path / "a.dcf").exists()
        result = invoke(*PACK, tmp_path / name, "-o", tmp_path / "a.dcf", *shlex.split(ways))
        assert result.exit_code == 0, result.output
        assert set(dcformat.load(tmp_path / "a.dcf").tensors) == {"w"}
        (tmp_path / "a.dcf").unlink()


def test_omissions_are_noted(invoke: Invoke, tmp_path: Path) -> None:
    state = {"w": torch.ones(2), "ids": torch.arange(3), "inf": torch.tensor(-torch.inf), "n": 3, "drop": torch.ones(1)}
    torch.save({"step": 1, "model_state": state}, tmp_path / "a.bin")
    arguments = [*PACK, tmp_path / "a.bin", "-o", tmp_path / "a.dcf", "--skip", "dr*", "--skip", "n", "--json"]
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["left_out"] == dict.fromkeys(("n", "drop"), "skipped as asked")
    assert result.stderr.splitlines()[:3] == [
        "note: the state_dict was found under 'model_state'; left out: 'step'",
        "note: left out as asked: 2 entries: n, drop",
        "warning: kept, but NaN or infinite in some places: 1 entry: inf (1 place)",
    ]
    assert dcformat.load(tmp_path / "a.dcf").tensors.keys() == {"w", "ids", "inf"}


def test_a_key_chooses_among_copies(invoke: Invoke, tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.ones(2)}, "ema": {"w": torch.tensor([3.0, 4.0])}}, tmp_path / "a.pt")
    arguments = [*PACK, tmp_path / "a.pt", "-o", tmp_path / "a.dcf"]
    refused(invoke(*arguments), "a.pt: expected one mapping of names to tensors", "--key", "found model, ema")
    assert invoke(*arguments, "--key", "ema").exit_code == 0
    assert dcformat.load(tmp_path / "a.dcf").tensors["w"].to_dense().tolist() == [3, 4]


def test_stdin(invoke: Invoke, tmp_path: Path, npz: Path, dcf: Path) -> None:
    arguments = [*PACK, "-", "-o", tmp_path / "a.dcf", "--architecture", "lenet-300-100"]
    assert invoke(*arguments, stdin=npz.read_bytes()).exit_code == 0
    assert (tmp_path / "a.dcf").read_bytes() == dcf.read_bytes()
    arguments = [*PACK, "-", "-o", tmp_path / "b.dcf"]
    refused(invoke(*arguments, stdin=b"hello"), "stdin: not a checkpoint (bytes of no known kind): give safetensors")
    refused(invoke(*arguments, "--max-memory", "1M", stdin=npz.read_bytes()), "stdin: expected", "at most 1,048,576")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a device of Linux and macOS")
def test_an_endless_device(invoke: Invoke, tmp_path: Path) -> None:
    refused(invoke(*PACK, "/dev/zero", "-o", tmp_path / "a.dcf"), "/dev/zero: not a checkpoint")


def test_a_memory_limit(invoke: Invoke, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", w=np.zeros((1000, 1000), np.float32))
    arguments = [*PACK, tmp_path / "a.npz", "-o", tmp_path / "a.dcf", "--max-memory"]
    refused(invoke(*arguments, "3M"), "a.npz: w: expected a checkpoint that takes at most 3,145,728 bytes", "4,000,000")
    refused(invoke(*arguments, "40M"), "a.npz: w: expected a tensor that takes at most 41,943,040 bytes", "52,000,000")
    assert invoke(*arguments, "52M").exit_code == 0


def test_metadata_that_is_too_long(invoke: Invoke, tmp_path: Path) -> None:
    metadata = {"long": "x" * 65_537, "k" * 255: "key", "fits": "y" * 65_536}
    save_torch({"w": torch.ones(2)}, tmp_path / "a.safetensors", metadata=metadata)
    result = invoke(*PACK, tmp_path / "a.safetensors", "-o", tmp_path / "a.dcf")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("warning: metadata left out: ") == 2
    assert dict(dcformat.load(tmp_path / "a.dcf").metadata) == {"safetensors.fits": "y" * 65_536}


def test_a_name_or_a_shape_that_the_format_cannot_hold(invoke: Invoke, tmp_path: Path) -> None:
    torch.save({"x" * 256: torch.ones(1)}, tmp_path / "a.pt")
    refused(
        invoke(*PACK, tmp_path / "a.pt", "-o", tmp_path / "a.dcf"),
        "a.pt: 'xxx",
        "expected a name of 1 to 255 bytes, found 256 bytes (--skip leaves the tensor out)",
    )
    torch.save({"deep": torch.ones([1] * 9)}, tmp_path / "b.pt")
    save_torch({"deep": torch.zeros([1] * 9), "wide": torch.zeros(0, 2**21, 2**21)}, tmp_path / "c.safetensors")
    deep = "deep: expected at most 7 dimensions, found 9 (--skip leaves the tensor out)"
    wide = "wide: expected at most 1,099,511,627,776 elements, found 4,398,046,511,104 (--skip leaves the tensor out)"
    for name, skip, message in (("b.pt", "", deep), ("c.safetensors", "", deep), ("c.safetensors", "deep", wide)):
        skipped = ["--skip", skip] if skip else []
        refused(invoke(*PACK, tmp_path / name, "-o", tmp_path / "a.dcf", *skipped), f"{name}: {message}")


@pytest.mark.parametrize(("options", "usages"), [([], 0), (["--json"], 1)])
def test_each_tensor_is_decoded_once(
    invoke: Invoke, tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], usages: int
) -> None:
    calls: list[str] = []
    for name in ("tensor", "usages"):
        original = getattr(dcformat.DcfFile, name)

        def counted(self: dcformat.DcfFile, *of: str, name: str = name, original: Any = original) -> Any:
            calls.append(name)
            return original(self, *of)

        monkeypatch.setattr(dcformat.DcfFile, name, counted)
    assert invoke(*PACK, npz, "-o", tmp_path / "a.dcf", "--architecture", "lenet-300-100", *options).exit_code == 0
    assert (calls.count("tensor"), calls.count("usages")) == (6, usages)


def test_a_file_that_does_not_read_back_is_never_written(
    invoke: Invoke, tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = dcformat.DcfFile.tensor

    def wrong(self: dcformat.DcfFile, name: str, **more: Any) -> Tensor:
        found = original(self, name, **more)
        return from_dense(name, found.to_dense() * 2) if name == "fc2.bias" else found

    monkeypatch.setattr(dcformat.DcfFile, "tensor", wrong)
    result = invoke(*PACK, npz, "-o", tmp_path / "a.dcf", "--architecture", "lenet-300-100")
    refused(result, "a.dcf: fc2.bias: expected the model's values when read back, found others")
    assert not (tmp_path / "a.dcf").exists()


def test_names_that_a_file_cannot_hold(invoke: Invoke, tmp_path: Path) -> None:
    odd = ["new\nline", "\U0001f600", "../../x", " ", "..", "\x1b[31m", "a/b"]
    values = {name: np.full((2, 2), number, np.float32) for number, name in enumerate(odd)}
    for bad, size in (("", "0 bytes"), ("x" * 300, "300 bytes")):
        save_file({**values, bad: values[" "]}, tmp_path / "a.safetensors")
        save_npz(tmp_path / "a.npz", {**values, bad: values[" "]})
        for name in ("a.safetensors", "a.npz"):
            arguments = [*PACK, tmp_path / name, "-f", "-o", tmp_path / "a.dcf"]
            expected = f"'{bad[:40]}': expected a name of 1 to 255 bytes, found {size} (--skip leaves the tensor out)"
            refused(invoke(*arguments), f"{tmp_path / name}: {expected}")
            assert not (tmp_path / "a.dcf").exists()
            assert invoke(*arguments, "--skip", bad).exit_code == 0
            assert dict(dcformat.load(tmp_path / "a.dcf").tensors).keys() == set(odd)
            (tmp_path / "a.dcf").unlink()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seconds", "nan"], "--seconds: expected a number"),
        (["--shards", "0"], "--shards: expected a size of at least 1 byte"),
        (["--max-memory", "1e9"], "expected a number"),
    ],
)
def test_odd_numbers(invoke: Invoke, tmp_path: Path, more: list[str], message: str) -> None:
    save_file({"w": np.ones((2, 2), np.float32)}, tmp_path / "a.safetensors")
    refused(invoke("pack", tmp_path / "a.safetensors", "-o", tmp_path / "a.dcf", *more), message, code=2)
    assert invoke(*PACK, tmp_path / "a.safetensors", "-o", tmp_path / "b.dcf", "--max-memory", "9" * 400).exit_code == 0
