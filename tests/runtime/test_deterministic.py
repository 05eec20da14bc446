"""`deterministic=True` gives the same bits for any split of a batch, number of threads and backend."""

from __future__ import annotations

import numpy as np
import pytest
from dcformat_runtime import cpu
from dcformat_runtime.network_engine import KernelEngine
from dcformat_runtime.numpy_backend.numpy_engine import NumpyEngine

from tests.runtime.example_networks import NETS, error, inputs


@pytest.mark.parametrize("name", NETS)
def test_batches_and_backends_agree_to_the_bit(name: str) -> None:
    network = NETS[name]().network()
    kernel = KernelEngine(network, 1, True)
    x = inputs(network, 37, share=0.7)
    expected = NumpyEngine(network, True).run(x)
    assert error(expected, NumpyEngine(network).run(x)) < 1e-5
    for size in (1, 8, 16, 37):
        parts = [kernel.run(x[start : start + size]) for start in range(0, 37, size)]
        assert np.array_equal(np.concatenate(parts), expected), size


def test_threads_agree_to_the_bit() -> None:
    network = NETS["lenet"]().network()
    x = inputs(network, 90)
    expected = KernelEngine(network, 1, True).run(x)
    for threads in (2, 3):
        assert np.array_equal(KernelEngine(network, threads, True, hand_over=1.0).run(x), expected)


@pytest.mark.parametrize("max_blocks", [1, 2, 6, 12])
def test_register_counts_agree_to_the_bit(max_blocks: int) -> None:
    network = NETS["residual"]().network()
    x = inputs(network, 3)
    expected = NumpyEngine(network, True).run(x)
    assert np.array_equal(
        KernelEngine(network, 1, True, vectors=cpu.vectors()._replace(max_blocks=max_blocks)).run(x), expected
    )
