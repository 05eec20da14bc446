"""Objects in an interpreter: each has a repr of one line for any contents, and every public name is listed."""

import inspect
import subprocess
import sys
from types import ModuleType

import dcformat_interop
import dcformat_runtime
import numpy as np
import pytest

import dcformat
from dcformat import Model, Tensor, from_dense
from dcformat.graph import Graph, Linear, ReLU


def sparse() -> Tensor:
    weight = np.zeros((300, 784), np.float32)
    weight.reshape(-1)[:1234] = np.resize(np.arange(1, 17, dtype=np.float32), 1234)
    return from_dense("fc1.weight", weight)


def test_tensors():
    assert repr(sparse()) == "Tensor('fc1.weight', float32 300x784, sparse, 1,234 of 235,200 stored, 16 shared values)"
    dense = from_dense("b", np.arange(1, 1001, dtype=np.float32) / 7)
    assert repr(dense) == "Tensor('b', float32 1000, dense)"
    assert repr(from_dense("c", np.full((2, 3), 0.5, np.float16), "float16")) == "Tensor('c', float16 2x3, constant)"
    assert repr(from_dense("\n", np.ones((), np.float32))) == "Tensor('\\n', float32 scalar, dense)"
    scaled = from_dense("q", np.arange(1, 101, dtype=np.int8), "int8", 0.25)
    assert repr(scaled) == "Tensor('q', int8 100, dense, scale 0.25)"


def test_models_graphs_files_and_sessions(tmp_path):
    graph = Graph.sequential((784,), (Linear((0,), "fc1.weight"), ReLU((1,))))
    model = Model({"fc1.weight": sparse()}, graph, ("a",) * 300, {"recipe": "x" * 1000})
    assert repr(graph) == "Graph(input 784: 1 linear, 1 relu)"
    assert repr(Graph.sequential((1, 28, 28), ())) == "Graph(input 1x28x28: no operators)"
    assert repr(model) == (
        "Model(1 tensor, 235,200 elements, Graph(input 784: 1 linear, 1 relu), 300 labels, metadata 'recipe')"
    )
    assert repr(Model({})) == "Model(0 tensors, 0 elements, no graph)"
    path = tmp_path / "a.dcf"
    dcformat.save(model, path)
    with dcformat.open(path) as file:
        assert repr(file) == f"DcfFile('{path}', {path.stat().st_size:,} bytes, 1 tensor)"
    with dcformat.open(path.read_bytes()) as file:
        assert repr(file) == f"DcfFile(bytes, {path.stat().st_size:,} bytes, 1 tensor)"
    session = dcformat_runtime.load(path, backend="numpy")
    assert repr(session) == "Session(784 -> 300, backend 'numpy')"


def test_every_public_name_is_listed():
    assert set(dcformat_interop.__all__) <= set(dir(dcformat_interop))
    program = "import dcformat; print(sorted(set(dcformat.__all__) - set(dir(dcformat))), 'save' in vars(dcformat))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[] False\n"


@pytest.mark.parametrize("package", [dcformat, dcformat_interop])
def test_completion_offers_no_names_of_other_modules(package: ModuleType) -> None:
    offered = [name for name in dir(package) if not name.startswith("_") and name not in package.__all__]
    assert [name for name in offered if not isinstance(getattr(package, name), ModuleType)] == []
    assert all(getattr(package, name).__name__.startswith(package.__name__) for name in offered)


def test_functions_have_their_own_signatures():
    for name in ("load", "open", "save", "dumps", "verify", "from_dense", "from_scipy", "apply", "delta"):
        parameters = inspect.signature(getattr(dcformat, name)).parameters.values()
        assert parameters
        assert all(each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY) for each in parameters)
    assert list(inspect.signature(dcformat.save).parameters) == ["model", "path", "mode", "relative_index"]
