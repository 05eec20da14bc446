"""Code for other instruction sets gives the same bits if it can run here; otherwise it is at least compiled."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numpy as np
import pytest

from dcformat.jit import cpuinfo

PROGRAM = """
import sys
import numpy as np
from dcformat_runtime import cpu
from dcformat_runtime.network_engine import KernelEngine
from tests.runtime.example_networks import NETS, inputs
from tests.runtime.test_bounds import clipped_network
from tests.runtime.test_elementwise import image_network
from tests.runtime.test_row_blocks import NETWORKS
from tests.runtime.test_windows import depthwise
more = (lambda: image_network(3, 16), lambda: depthwise(5, (9, 17), 2, 2))
out = []
for make in (*NETS.values(), NETWORKS["7 x 7"], clipped_network, *more):
    network = make().network()
    for max_blocks, permutes in ((3, False), (12, True)):
        for exact in (True, False):
            vectors = cpu.Vectors(max_blocks, permutes, cpu.vectors().half_vectors)
            engine = KernelEngine(network, 1, exact, vectors=vectors)
            out += [engine.run(inputs(network, batch)).reshape(-1) for batch in (1, 20)]
np.concatenate(out).tofile(sys.argv[1])
"""

#: Every function of one number, and of rows.
FUNCTIONS = """
import sys
import numpy as np
from dcformat import Model
from dcformat.graph import Graph, Normalize, Reduce, Softmax, Unary
from dcformat_runtime import Session
from dcformat_runtime.compile import map_builder
from dcformat_runtime.kernels.map_kernel import run_map
from dcformat_runtime.kernels.row_kernel import run_rows
for kernel in (run_map, run_rows):
    kernel.resolve()  # a short call would run as Python
x = np.random.default_rng(0).normal(0, 20, (2, 50, 197)).astype(np.float32)
nodes = [Unary((0,), name) for name in map_builder.UNARY]
nodes += [Softmax((0,)), Normalize((0,), (1,), 1e-5), Reduce((0,), "mean", (1,)), Reduce((0,), "sum", (1,))]
out = [Session.from_model(Model({}, Graph.sequential((50, 197), [node])), backend="numba")(x) for node in nodes]
np.concatenate([y.reshape(-1) for y in out]).tofile(sys.argv[1])
"""

#: A network of integers with every operator.
INTEGERS = """
import sys
import numpy as np
from dcformat import graph as g
from tests.runtime.test_integers import bytes_of, compiled, model, weights_of
nodes = [
    g.Conv((1,), "a", None, (2, 1), (1, 1), (1, 1)), g.Requantize((2, "s"), 1.0, 1.0, -100, 120),
    g.Conv((3,), "b", None, groups=20), g.Requantize((4, 0.01), 1.0, 1.0, -128, 127), g.Binary((5, 0.1), "mul"),
    g.Add((6, 6)), g.Requantize((7, 1.0), 1.0, 0.17, -128, 127), g.MaxPool((8,), (2, 2), (2, 2), (0, 0), (0, 0)),
    g.Reduce((9,), "mean", (1, 2)),
    g.Requantize((10, 1.0), 1.0, 1.1, -128, 127), g.Linear((11,), "c"), g.Requantize((12, 0.004), 1.0, 1.0, -128, 127),
    g.Binary((13, 0.02), "mul"), g.Softmax((14,)), g.Requantize((15, 1.0), 1.0, 1 / 256, 0, 255),
    g.Binary((16, 128.0), "sub"),
]
scales = np.random.default_rng(2).uniform(0.005, 0.02, (20, 1, 1)).astype(np.float32)
weights = {"a": weights_of((20, 3, 3, 3)), "b": weights_of((20, 1, 3, 3)), "c": weights_of((300, 20)), "s": scales}
found = compiled(model((3, 22, 13), nodes, weights)).run_bytes(bytes_of((3, 22, 13), batch=20))
found.astype(np.float32).tofile(sys.argv[1])
"""


def _run(path: str, program: str = PROGRAM, **environment: str) -> np.ndarray:
    env = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program, path], env=env, check=True)
    return np.fromfile(path, np.float32)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86-64 processors")
@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")
def test_other_vector_widths(tmp_path: object) -> None:
    """Forced AVX2 and SSE2 code gives the same deterministic results, bit for bit, as the best for this machine."""
    here = _run(f"{tmp_path}/here")
    for cpu in ("haswell", "x86-64"):
        there = _run(f"{tmp_path}/{cpu}", NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES="")
        assert there.shape == here.shape
        for k, (mine, other) in enumerate(zip(_parts(here), _parts(there), strict=True)):
            exact = k % 2 == 0
            assert np.array_equal(mine, other) if exact else np.allclose(mine, other, 1e-4, 1e-5), (cpu, k)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86-64 processors")
@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")
def test_functions_are_the_same_for_other_vector_widths(tmp_path: object) -> None:
    here = _run(f"{tmp_path}/here", FUNCTIONS).view(np.uint32)
    for cpu in ("haswell", "x86-64"):
        there = _run(f"{tmp_path}/{cpu}", FUNCTIONS, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES="").view(np.uint32)
        np.testing.assert_array_equal(there, here)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86-64 processors")
@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")
def test_integers_are_the_same_for_other_vector_widths(tmp_path: object) -> None:
    here = _run(f"{tmp_path}/here", INTEGERS)
    assert len(np.unique(here)) > 3
    targets = [("x86-64", ""), ("haswell", "+avx2")]
    if "avx512bw" in cpuinfo.features():
        targets.append(("skylake-avx512", "+avx512bw"))
    for cpu, features in targets:
        there = _run(f"{tmp_path}/{cpu}", INTEGERS, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=features)
        np.testing.assert_array_equal(there, here)


def _parts(values: np.ndarray) -> list[np.ndarray]:
    """Split the results by engine."""
    from tests.runtime.example_networks import NETS

    out, start = [], 0
    for name in NETS:
        size = 21 * NETS[name]().network().outputs
        for _ in range(4):
            out.append(values[start : start + size])
            start += size
    return out
