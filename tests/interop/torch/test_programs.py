"""``.pt2`` archives: their contents are read and checked, and no code in them runs."""

from __future__ import annotations

import inspect
import json
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dcformat_interop import UnfitError, import_pt2, read_pt2
from dcformat_interop.torch_import import quiet
from dcformat_runtime import Session
from torch import Tensor, nn

import dcformat

MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, bias=False)
        self.norm = nn.BatchNorm2d(2)
        self.register_buffer("factor", torch.tensor([[2.0], [3.0]]))
        self.shift = torch.arange(4.0)

    @torch.no_grad()
    def forward(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        features = torch.relu(self.norm(self.conv(x))).flatten(2) * self.get_buffer("factor")
        return {"features": features, "rest": (y + self.shift, y @ y.new_ones(4, 2))}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    batch = torch.export.Dim("batch")
    inputs = torch.randn(3, 1, 5, 5), torch.randn(3, 4)
    with quiet():
        exported = torch.export.export(Net().eval(), inputs, dynamic_shapes=({0: batch}, {0: batch}))
        torch.export.save(exported, path)
    return path


def altered(program: Path, path: Path, changes: dict[str, Callable[[bytes], bytes] | bytes]) -> Path:
    """Write a copy of an archive with members changed or added, by the ends of their names."""
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(path, "w") as new:
        left = dict(changes)
        for info in old.infolist():
            data = old.read(info)
            for name in changes:
                if info.filename.endswith(name):
                    change = left.pop(name)
                    data = change if isinstance(change, bytes) else change(data)
            new.writestr(info.filename, data)
        for name, added in left.items():
            assert isinstance(added, bytes)
            new.writestr(f"net/{name}", added)
    return path


def edited(*places: Any, value: Any) -> Callable[[bytes], bytes]:
    """Return a change of a JSON text: `value` for what is at `places`."""

    def change(text: bytes) -> bytes:
        document = part = json.loads(text)
        for place in places[:-1]:
            part = part[place]
        part[places[-1]] = value
        return json.dumps(document).encode()

    return change


class Touch:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_program_is_read_and_checked(program: Path) -> None:
    imported = import_pt2(program)
    session = Session.from_model(imported.model, backend="numpy")
    assert session.inputs == (("x", (None, 1, 5, 5), "float32"), ("y", (None, 4), "float32"))
    names = [info.name for info in session.outputs]
    assert names == ["features", "rest.0", "rest.1"]
    compared = imported.check(session)
    assert compared.engine == f"torch {torch.__version__}" and compared.batches == (1, 3)
    assert set(imported.model.tensors) >= {"conv.weight", "factor", "shift"}
    y = np.ones((2, 4), np.float32)
    found = session({"x": np.zeros((2, 1, 5, 5), np.float32), "y": y})
    np.testing.assert_array_equal(found["rest.0"], [[1, 2, 3, 4]] * 2)


def test_pytorch_makes_its_table_of_functions_once(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes the table from the sources of hundreds of functions."""
    expected = dcformat.dumps(import_pt2(program).model)
    read, source = list[object](), inspect.getsource

    def getsource(item: Any) -> str:
        read.append(item)
        return source(item)

    monkeypatch.setattr(inspect, "getsource", getsource)
    assert dcformat.dumps(import_pt2(program).model) == expected
    assert len(read) < 50
    monkeypatch.setitem(sys.modules, "torch.onnx._internal.exporter._registration", None)
    assert dcformat.dumps(import_pt2(program).model) == expected
    assert len(read) > 200


def test_nothing_is_unpickled_or_evaluated(program: Path, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    pickled = pickle.dumps(Touch(touched))
    code = f"Path({str(touched)!r}).touch()"
    names = ("graph_module", "graph", "nodes", 0, "inputs", 1, "arg", "as_graph", "graph")
    size = (*names, "tensor_values", "x", "sizes", 0, "as_expr", "expr_str")
    target = (*names, "nodes", 0, "target")
    tree = json.dumps([1, {"type": "collections.defaultdict", "context": "{}", "children_spec": []}])
    spec = ("graph_module", "module_call_graph", 0, "signature", "in_spec")
    enum = json.dumps(
        [1, {"type": "builtins.dict", "context": '[{"__enum__": true, "fqn": "a:b"}]', "children_spec": []}]
    )
    weight = {"path_name": "weight_0", "is_param": True, "use_pickle": True, "tensor_meta": None}
    harmless: dict[str, Callable[[bytes], bytes] | bytes] = {
        "data/sample_inputs/model.pt": pickled,
        "data/aotinductor/model/a.so": b"\x7fELF",
        "extra/notes.txt": b"text",
        MODEL: edited("guards_code", value=[f"__import__('pathlib').{code}"]),
    }
    assert read_pt2(altered(program, tmp_path / "a.pt2", harmless)).graph is not None
    refused: list[tuple[dict[str, Callable[[bytes], bytes] | bytes], str]] = [
        ({MODEL: edited(*size, value=f"__import__('pathlib').{code}")}, "expr_str: expected plain names and sizes"),
        ({MODEL: edited(*size, value="9**9**9**9")}, "expr_str: expected plain names and sizes"),
        ({MODEL: edited(*size, value="1" * 60 + "!")}, "expr_str: expected plain names and sizes"),  # at once
        ({MODEL: edited(*target, value="torch.hub.load")}, "target: expected operators of PyTorch's aten library"),
        ({MODEL: edited(*target, value="torch.ops.aten.from_file.default")}, "target: expected operators of PyTorch"),
        ({MODEL: edited(*names, "nodes", 0, "name", value="x=print(1)")}, "name: expected plain names and sizes"),
        ({MODEL: edited(*spec, value=tree)}, "arguments and results: expected tuples, lists and dicts of tensors"),
        ({MODEL: edited(*spec, value=enum)}, "arguments and results: expected dicts whose keys are text"),
        (
            {WEIGHTS: edited("config", "conv.weight", value=weight), "data/weights/weight_0": pickled},
            "expected tensors of plain bytes, found a pickled object, which could run code",
        ),
        ({"data/weights/weight_0": b"short"}, "expected a torch.export program, found one that PyTorch cannot load"),
        *(
            ({name: change}, "expected a torch.export program, found a damaged one")
            for name, change in (
                (MODEL, b"{"),
                (WEIGHTS, b"[]"),
                (WEIGHTS, b'{"config": []}'),
                (WEIGHTS, b'{"config": {"w": 5}}'),
                (MODEL, edited(*spec, value="[1]")),
                (MODEL, edited(*spec, value="[1, 5]")),
            )
        ),
    ]
    for changes, message in refused:
        with pytest.raises(UnfitError, match=message):
            read_pt2(altered(program, tmp_path / "b.pt2", changes))
    assert not touched.exists()


def test_other_archives_are_named(program: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    path.write_bytes(program.read_bytes()[:400])
    with pytest.raises(UnfitError, match=r"expected a torch\.export program, found a damaged one"):
        read_pt2(path)
    for member, found in (("serialized_exported_program.json", "one of an earlier version"), ("a", "none")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(member, b"{}")
        with pytest.raises(UnfitError, match=rf"expected one program, .* 2\.8 or later, found {found}"):
            read_pt2(path)


def test_memory_is_counted(program: Path, tmp_path: Path) -> None:
    with pytest.raises(UnfitError, match=r"a program that takes at most 1,000 bytes of memory"):
        read_pt2(program, max_memory=1000)
    large = altered(program, tmp_path / "a.pt2", {WEIGHTS: b'{"config": {}}' + b" " * 100_000})
    with pytest.raises(UnfitError, match=r"a program that takes at most 8,000,000 bytes of memory"):
        read_pt2(large, max_memory=8_000_000)  # 80 bytes for each of JSON
    read_pt2(program, max_memory=8_000_000)


def test_a_dimension_besides_the_batch_needs_a_size(tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", min=4)
    module = nn.Sequential(nn.Conv1d(2, 3, 3), nn.AdaptiveAvgPool1d(1))
    with quiet():
        exported = torch.export.export(module, (torch.randn(3, 2, 9),), dynamic_shapes=({0: batch, 2: length},))
        torch.export.save(exported, path)
    with pytest.raises(UnfitError, match=r"dimensions of known size besides the batch, .*: give --dim \w+=SIZE"):
        import_pt2(path)
    imported = import_pt2(path, dims={"input.2": 12})
    imported.check(Session.from_model(imported.model, backend="numpy"))
    assert imported.model.graph is not None and imported.model.graph.inputs[0].shape == (2, 12)
