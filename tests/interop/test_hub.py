"""Models in directories and repositories of Hugging Face, and state_dicts of files."""

from pathlib import Path

import dcformat_runtime
import numpy as np
import pytest
import torch
from dcformat_interop import UnfitError, find_model, load_state_dict

import dcformat
from dcformat import Model, from_dense
from dcformat.errors import FormatError, MemoryLimitError
from dcformat.graph import Graph, Linear

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def model() -> Model:
    weight = from_dense("w", np.eye(3, dtype=np.float32))
    return Model({"w": weight}, Graph.sequential((3,), (Linear((0,), "w"),)))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache of huggingface_hub that holds the repository org/name."""
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    (snapshot / "config.json").write_text("{}")
    dcformat.save(model(), snapshot / "model.dcf")
    return tmp_path


def test_a_repository_in_the_cache(cache: Path) -> None:
    path = find_model("org/name", cache_dir=cache, local_files_only=True)
    assert path == cache / "models--org--name" / "snapshots" / COMMIT / "model.dcf"
    session = dcformat_runtime.load(path, backend="numpy")
    assert session(np.ones((1, 3), np.float32)).tolist() == [[1, 1, 1]]
    with pytest.raises(UnfitError, match="other/name: expected a file, a directory or a repository"):
        find_model("other/name", cache_dir=cache, local_files_only=True)


def test_files_and_directories(cache: Path, tmp_path: Path) -> None:
    folder = find_model("org/name", cache_dir=cache, local_files_only=True).parent
    assert find_model(folder) == find_model(folder / "model.dcf") == folder / "model.dcf"
    (folder / "model.dcf").rename(folder / "weights.dcf")
    assert find_model(folder) == folder / "weights.dcf"
    (folder / "more.dcf").write_bytes(b"")
    with pytest.raises(UnfitError, match=r"expected model.dcf, or a single .dcf file, found more.dcf, weights.dcf"):
        find_model(folder)
    with pytest.raises(FileNotFoundError):
        find_model(tmp_path / "no" / "such.dcf")


def test_a_model_in_memory_runs() -> None:
    session = dcformat_runtime.load(model(), backend="numpy")
    assert session(np.ones((1, 3), np.float32)).tolist() == [[1, 1, 1]]


def test_a_state_dict() -> None:
    given = {
        "w": torch.tensor([[0.0, 1.5], [-2.0, 0.0]]), "h": torch.tensor([1.0, 0.5]).bfloat16(),
        "n": torch.tensor([3, 0]), "f": torch.tensor([1.0, 0.0]).to(torch.float8_e4m3fn),
    }  # fmt: skip
    tensors = [
        from_dense("w", given["w"].numpy()), from_dense("h", np.array([1.0, 0.5]), "bfloat16"),
        from_dense("n", given["n"].numpy(), "int64"),
        from_dense("f", given["f"].view(torch.uint8).numpy(), "float8_e4m3fn"),
        from_dense("q", np.array([1, -2], np.int8), "int8", 0.5),
    ]  # fmt: skip
    data = dcformat.dumps(Model({tensor.name: tensor for tensor in tensors}))
    state = load_state_dict(data)
    assert list(state) == ["w", "h", "n", "f", "q"]
    for name, tensor in given.items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name].float(), tensor.float())
    assert state["q"].tolist() == [0.5, -1.0]
    torch.nn.Linear(2, 2, bias=False).load_state_dict({"weight": state["w"]})
    with pytest.raises(MemoryLimitError):
        load_state_dict(data, max_memory=40)
    with pytest.raises(FormatError):
        load_state_dict(data[:-1])
