"""Predictions against what is really taken."""

from __future__ import annotations

from pathlib import Path

import dcformat_runtime
import numpy as np
import pytest
from dcformat_runtime.engine import KernelEngine
from dcformat_runtime.network import lower

import dcformat
from tests.runtime.nets import NETS, Net, mlp


def _skewed() -> Net:
    """A network whose first layer has a third of its entries in one row."""
    net = mlp(64, 100, 10, density=0.02)
    dense = net.tensors["w0"].to_dense()
    dense[17] = 1.5
    net.tensors["w0"] = dcformat.from_dense("w0", dense)
    return net


@pytest.mark.parametrize("name", [*NETS, "skewed"])
def test_predictions_are_upper_bounds_and_not_far_off(name: str, tmp_path: Path) -> None:
    net = _skewed() if name == "skewed" else NETS[name]()
    path = tmp_path / "net.dcf"
    dcformat.save(net.model(), path)
    with dcformat.open(path) as file:
        rows = {row.what: row.bytes for row in dcformat_runtime.predict_memory(file, threads=1, backend="numba")}
    engine = KernelEngine(lower(net.model()), 1, False)
    for single, what in ((True, "one input"), (False, "many inputs")):
        program = engine._runner(single).program
        tables, arenas = rows[f"tables of the kernels for {what}"], rows[f"arenas of the kernels for {what}"]
        assert program.mem.nbytes <= tables <= 4 * program.mem.nbytes
        assert 4 * program.arena == arenas
    held = sum(
        layer.weight.indptr.nbytes + layer.weight.indices.nbytes + layer.weight.values.nbytes + layer.bias.nbytes
        for layer in engine._network.layers
        if layer.weight is not None and layer.bias is not None
    )
    assert held <= rows["weights as sparse float32 rows"]


def test_the_numpy_backend_holds_weights_dense(tmp_path: Path) -> None:
    path = tmp_path / "net.dcf"
    net = mlp(64, 100, 10)
    dcformat.save(net.model(), path)
    with dcformat.open(path) as file:
        rows = {row.what: row.bytes for row in dcformat_runtime.predict_memory(file, backend="numpy")}
    assert rows["weights as dense float32"] == 4 * (64 * 100 + 100 * 10)


def test_a_weight_too_large_to_be_dense() -> None:
    """10^12 elements, seven of them stored: nothing of the dense size is ever made."""
    from dcformat.graph import Graph, Linear
    from dcformat.model import Model, Tensor

    rows = columns = 1_000_000
    indptr = np.zeros(rows + 1, np.int64)
    indptr[5:] = 7
    weight = Tensor(
        "w", (rows, columns), "float32", np.arange(1, 8, dtype=np.float32), None, indptr,
        np.arange(0, 700_000, 100_000, dtype=np.int32),
    )  # fmt: skip
    bias = Tensor("b", (rows,), "float32", np.zeros(1, np.float32))
    network = lower(Model({"w": weight, "b": bias}, Graph((columns,), (Linear((0,), "w", "b"),))))
    x = np.ones((1, columns), np.float32)
    y = KernelEngine(network, 1, False).run(x)
    assert y[0, 4] == 28 and np.count_nonzero(y) == 1
