"""Sessions, engines and open files continue to work in a forked child."""

from __future__ import annotations

import io
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from dcformat_runtime import Session
from dcformat_runtime import network_engine as engines
from dcformat_runtime.compile import program
from dcformat_runtime.kernels import interpreter
from dcformat_runtime.network_engine import KernelEngine

import dcformat
from tests.runtime.example_networks import inputs, lenet

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


def fork(function: Callable[[], Any]) -> Any:
    """Run a function in a forked child and return its result; fail if the child hangs."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=lambda: send.send(function()))
    child.start()
    try:
        assert receive.poll(60), "the child hangs"
        return receive.recv()
    finally:
        child.kill()
        child.join()


def test_a_fork_while_workers_run() -> None:
    interpreter.wait.resolve()  # otherwise the child may have to compile it, which is slow on a busy machine
    network = lenet().network()
    engine = KernelEngine(network, 2, False, hand_over=1.0)
    x = inputs(network, 64)
    expected = engine.run(x)
    assert any(thread.name == "dcformat" for thread in threading.enumerate())
    assert np.array_equal(fork(lambda: engine.run(x)), expected)


def test_a_fork_while_another_thread_makes_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, begun, end, build = os.getpid(), threading.Event(), threading.Event(), program.build

    def slow(*args: Any, **options: Any) -> Any:
        if os.getpid() == parent:
            begun.set()
            end.wait(120)
        return build(*args, **options)

    monkeypatch.setattr(engines, "build", slow)
    session = Session.from_model(lenet().model(), backend="numba", threads=2)
    x = inputs(lenet().network(), 5)
    with ThreadPoolExecutor(1) as pool:
        mine = pool.submit(session, x)
        try:
            assert begun.wait(60)
            found = fork(lambda: session(x))
        finally:
            end.set()
        assert np.array_equal(found, mine.result(60))


def test_a_fork_while_another_thread_reads_the_file() -> None:
    begun, end = threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if threading.current_thread() is not threading.main_thread():
                begun.set()
                end.wait(120)
            return super().read(size)

    with dcformat.open(Slow(dcformat.dumps(lenet().model()))) as file, ThreadPoolExecutor(1) as pool:
        reading = pool.submit(file.tensor, "w0")
        try:
            assert begun.wait(60)
            assert np.array_equal(fork(lambda: file.tensor("w2").values()), lenet().tensors["w2"].values())
        finally:
            end.set()
        assert np.array_equal(reading.result(60).values(), lenet().tensors["w0"].values())
