"""Users' checkpoints are read, or refused."""

from __future__ import annotations

import pickle
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch
from dcformat_pruning.lenets import CheckpointError, build, load_weights
from dcformat_pruning.state_dicts import (
    fold_masks,
    load_checkpoint,
)
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune


def test_a_checkpoint_is_read_from_pt_and_safetensors_alike(tmp_path: Path) -> None:
    state = build("lenet-300-100", 1).state_dict()
    torch.save(state, tmp_path / "a.pt")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "b.pth")
    save_file(state, tmp_path / "c.safetensors")
    for name in ("a.pt", "b.pth", "c.safetensors"):
        found = load_checkpoint(tmp_path / name)
        assert set(found) == set(state)
        assert all(torch.equal(found[n], state[n]) for n in state)


def test_masks_of_torch_prune_are_folded(tmp_path: Path) -> None:
    layer = nn.Linear(6, 4)
    module = nn.Sequential(layer)
    prune.l1_unstructured(layer, "weight", amount=0.5)
    expected = layer.weight.detach().clone()
    torch.save(module.state_dict(), tmp_path / "masked.pt")
    assert torch.equal(load_checkpoint(tmp_path / "masked.pt")["0.weight"], expected)
    assert list(fold_masks({"a_orig": torch.ones(2)})) == ["a_orig"]


@pytest.mark.parametrize(
    "dtype",
    [torch.bool, torch.uint8, torch.int8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64],
)
def test_masks_of_any_dtype_keep_bits_and_silence_nan(dtype: torch.dtype, tmp_path: Path) -> None:
    state = {
        "0.weight_orig": torch.tensor([[float("nan"), -0.0, 0.1], [float("inf"), -2.0, -3.0]]),
        "0.weight_mask": torch.tensor([[0, 1, 1], [0, 0, 1]]).to(dtype),
        "0.bias": torch.ones(2),
    }
    torch.save(state, tmp_path / "masked.pt")
    found = load_checkpoint(tmp_path / "masked.pt")
    assert list(found) == ["0.weight", "0.bias"] and found["0.weight"].dtype == torch.float32
    assert found["0.weight"].tolist() == torch.tensor([[0.0, -0.0, 0.1], [0.0, 0.0, -3.0]]).tolist()
    assert torch.signbit(found["0.weight"]).tolist() == [[False, True, False], [False, False, True]]


def test_masks_of_other_values_or_shapes_are_refused_by_name(tmp_path: Path) -> None:
    for mask, message in (
        (torch.tensor([1.0, 0.5]), r"m\.pt: fc\.weight: expected a mask of zeros and ones, found 0\.5 in it"),
        (torch.tensor([1, -1]), r"m\.pt: fc\.weight: expected a mask of zeros and ones, found -1 in it"),
        (torch.tensor([1.0, float("nan")]), r"fc\.weight: expected a mask of zeros and ones, found nan in it"),
        (
            torch.ones(2, dtype=torch.complex64),
            r"fc\.weight: expected a mask of zeros and ones, found one of torch.comp",
        ),
        (torch.ones(3), r"fc\.weight: expected a mask of shape \(2,\), found \(3,\)"),
    ):
        torch.save({"fc.weight_orig": torch.ones(2), "fc.weight_mask": mask}, tmp_path / "m.pt")
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(tmp_path / "m.pt")


@pytest.mark.parametrize("version", ["2.5.1", "2.4.0+cpu"])
def test_a_pytorch_that_could_be_made_to_run_code_loads_nothing(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"w": torch.ones(1)}, tmp_path / "a.pt")
    save_file({"w": torch.ones(1)}, tmp_path / "a.safetensors")
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(CheckpointError, match=r"a\.pt: expected PyTorch 2\.6 or later, found .*CVE-2025-32434"):
        load_checkpoint(tmp_path / "a.pt")
    assert load_checkpoint(tmp_path / "a.safetensors")["w"].item() == 1
    monkeypatch.setattr(torch, "__version__", "2.6.0+cpu")
    assert load_checkpoint(tmp_path / "a.pt")["w"].item() == 1


def test_refusals_do_not_relay_advice_to_load_unsafely(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    # Only archives of TorchScript hold this file; scripting a module would warn in recent versions.
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("script/data.pkl", b"\x80\x02N.")
        archive.writestr("script/constants.pkl", b"\x80\x02).")
        archive.writestr("script/version", b"3\n")
    for name, message in (
        ("module", "found an object of torch.nn.modules.linear.Linear; save only module.state_dict"),
        ("script", "found a TorchScript archive; save the state_dict"),
    ):
        with pytest.raises(CheckpointError, match=message) as caught:
            load_checkpoint(tmp_path / f"{name}.pt")
        assert "weights_only" not in str(caught.value)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    target = tmp_path / "touched"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, (f"open({str(target)!r}, 'w')",))

    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"fc1.weight": Evil()}, protocol=2))
    torch.save({"fc1.weight": Evil()}, tmp_path / "evil2.pt")
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(CheckpointError, match=f"{name}: expected a PyTorch file that holds only tensors"):
            load_checkpoint(tmp_path / name)
    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.pt", b"", "expected a PyTorch file that holds only tensors"),
        ("text.pt", b"not a checkpoint", "expected a PyTorch file that holds only tensors"),
        ("cut.safetensors", b"\x80\0\0\0\0\0\0\0{", "expected a safetensors file"),
    ],
)
def test_other_files_are_refused_by_name(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name}: {message}"):
        load_checkpoint(tmp_path / name)


def test_text_that_claims_more_than_its_file(tmp_path: Path) -> None:
    """A file of a few bytes claims a pickled text of 3 GiB; no memory is allocated for it."""
    path = tmp_path / "a.pt"
    torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:32] + b"X" + (3 << 30).to_bytes(4, "little") + b"protocol_version")
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=r"a\.pt: expected a PyTorch file that holds only tensors"):
            load_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_something_else_than_a_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match=r"list\.pt: expected a state_dict \(names to tensors\), found list"):
        load_checkpoint(tmp_path / "list.pt")
    for name in (3, None, ("a", 1)):
        torch.save({name: torch.ones(2)}, tmp_path / "keys.pt")
        with pytest.raises(CheckpointError, match=r"keys\.pt: expected a state_dict \(names to tensors\), found dict"):
            load_checkpoint(tmp_path / "keys.pt")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (3, "int"),
        (torch.ones(2, device="meta"), "torch.float32, torch.strided without data"),
        (torch.ones(2).to_sparse(), "torch.float32, torch.sparse_coo"),
    ],
)
def test_entries_without_plain_elements_are_refused_by_name(value: object, found: str, tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2), "odd": value}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=rf"a\.pt: odd: expected a dense tensor, found {found}"):
        load_checkpoint(tmp_path / "a.pt")


def test_weights_are_matched_by_order_and_shape_and_must_be_finite() -> None:
    source, target = build("lenet-300-100", 1), build("lenet-300-100", 2)
    renamed = {f"layer{i}": v for i, v in enumerate(source.state_dict().values())}
    load_weights(target, renamed)
    assert torch.equal(target.get_parameter("fc2.weight"), source.get_parameter("fc2.weight"))
    with pytest.raises(CheckpointError, match=r"expected 6 tensors .* found 5"):
        load_weights(target, dict(list(renamed.items())[:5]))
    wrong = dict(source.state_dict())
    wrong["fc2.weight"] = torch.zeros(100, 299)
    with pytest.raises(CheckpointError, match=r"fc2\.weight: expected shape \(100, 300\), found \(100, 299\)"):
        load_weights(target, wrong)
    wrong["fc2.weight"] = torch.full((100, 300), float("nan"))
    with pytest.raises(CheckpointError, match=r"fc2\.weight: expected finite values, found NaN or infinity"):
        load_weights(target, wrong)
